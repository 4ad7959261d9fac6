//! Optimizers for candle.

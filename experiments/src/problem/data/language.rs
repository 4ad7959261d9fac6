//! An artificial language whose entropy is known, so that a loss can be compared with the least one possible.
//!
//! It is a Markov source of order 2 over 15 letters and the space: each pair of characters has its own distribution of
//! the next one. The distributions are drawn once, from a fixed seed, so that vowels and consonants tend to alternate and
//! two spaces never meet:
//!
//! ```text
//! weight(c | a, b) = 2^k s,  k uniform in 0..12,
//! s = 16 for a vowel after a consonant, 8 for a consonant after a vowel, 16 for a space that ends two letters or more,
//!     0 for a space after a space or after a word's first letter, 1 for all else
//! ```
//!
//! Weights are whole numbers and the sampling uses whole numbers only, so the text is the same on every machine.

use super::{
    error::DataError,
    published::Published,
    spec::{Defaults, Spec},
    text::TextData,
};
use crate::random::{Purpose, stream};
use rand::Rng;

/// 1,000,000 characters of 16 kinds.
pub const SPEC: Spec = Spec {
    name: "language",
    doc: "an artificial language whose least possible loss is known (generated)",
    default_model: "gpt",
    defaults: Defaults::TEXT,
    images: None,
    published: &[Published {
        name: "language",
        sha256: "a1d012e0de85d110f95316b609d0183aee633b989613dd231d6d466abe81df1c",
    }],
};

const CHARACTERS: usize = 1_000_000;
const LETTERS: [char; 16] = [' ', 'a', 'd', 'e', 'h', 'i', 'l', 'm', 'n', 'o', 'r', 's', 't', 'u', 'w', 'y'];
const VOWELS: [char; 6] = ['a', 'e', 'i', 'o', 'u', 'y'];
const SEED: u64 = 0;

/// The first 1,000,000 characters of the language. The floor is its entropy rate.
///
/// # Errors
/// None: the text is long enough.
pub fn load() -> Result<TextData, DataError> {
    let source = Source::new();
    let text: String = source.sample(SEED, CHARACTERS).into_iter().map(|letter| LETTERS[letter]).collect();
    Ok(TextData { floor: Some(source.entropies().rate), ..TextData::from_text(SPEC.name, &text)? })
}

/// The expected loss per character, in nats, of the best possible model that sees windows of `context` characters as
/// [`text::windows`](super::text::windows) cuts them.
///
/// The first target of a window is predicted from one character, all others from the two or more that determine their
/// distribution, and all count the same: `(H(X2 | X1) + (context - 1) h) / context`, with the entropy rate `h`. It tends to
/// `h` from above as the context grows.
///
/// # Panics
/// When `context` is 0: there is no target.
pub fn block_entropy(context: usize) -> f64 {
    Source::new().entropies().block(context)
}

/// A Markov source of order 2 over `letters` letters.
struct Source {
    letters: usize,
    /// The cumulative weights of the next letter, by the pair of letters `a * letters + b` before it.
    cumulative: Vec<Vec<u64>>,
}

/// The entropies of a source in nats per letter.
struct Entropies {
    /// Of a letter when the one before it is known.
    second: f64,
    /// Of a letter when two or more before it are known.
    rate: f64,
}

impl Source {
    fn new() -> Self {
        let mut rng = stream(SEED, Purpose::Language, 0);
        let is_vowel = |letter: usize| VOWELS.contains(&LETTERS[letter]);
        Self::from_weights(LETTERS.len(), |a, b, next| {
            let power = u64::from(rng.next_u32() % 12);
            let share = match (a, b, next) {
                (_, 0, 0) | (0, _, 0) => 0,
                (_, _, 0) => 16,
                (_, 0, _) => 1,
                _ if is_vowel(b) => 1 + 7 * u64::from(!is_vowel(next)),
                _ => 1 + 15 * u64::from(is_vowel(next)),
            };
            share << power
        })
    }

    /// The source in which `next` follows `a` and `b` with a probability proportional to `weight(a, b, next)`.
    fn from_weights(letters: usize, mut weight: impl FnMut(usize, usize, usize) -> u64) -> Self {
        let mut cumulative = Vec::with_capacity(letters * letters);
        for (a, b) in (0..letters).flat_map(|a| (0..letters).map(move |b| (a, b))) {
            let mut sum = 0;
            let sums = (0..letters).map(|next| {
                sum += weight(a, b, next);
                sum
            });
            cumulative.push(sums.collect());
        }
        Self { letters, cumulative }
    }

    /// The probability of each letter after a pair.
    fn probabilities(&self, pair: usize) -> Vec<f64> {
        let sums = &self.cumulative[pair];
        let total = sums[self.letters - 1] as f64;
        (0..self.letters).map(|next| (sums[next] - next.checked_sub(1).map_or(0, |i| sums[i])) as f64 / total).collect()
    }

    /// The pair that follows `pair` when `next` is the next letter.
    fn step(&self, pair: usize, next: usize) -> usize {
        pair % self.letters * self.letters + next
    }

    /// A text of `len` letters, as if a space and the first letter stood before it.
    fn sample(&self, seed: u64, len: usize) -> Vec<usize> {
        let mut rng = stream(seed, Purpose::Language, 1);
        let mut pair = 1;
        let draw = |_| {
            let sums = &self.cumulative[pair];
            // A whole number below the total; its probabilities are off by less than 2^-32.
            let number = (u64::from(rng.next_u32()) * sums[self.letters - 1]) >> 32;
            let next = sums.partition_point(|&sum| sum <= number);
            pair = self.step(pair, next);
            next
        };
        (0..len).map(draw).collect()
    }

    /// The share of each pair in an endless text, by power iteration until the shares move by less than 1e-14 in all. It
    /// averages with the step before, so that a source with a cycle converges too.
    fn stationary(&self) -> Vec<f64> {
        let pairs = self.cumulative.len();
        let probabilities: Vec<Vec<f64>> = (0..pairs).map(|pair| self.probabilities(pair)).collect();
        let mut shares = vec![1.0 / pairs as f64; pairs];
        loop {
            let mut moved = shares.iter().map(|share| 0.5 * share).collect::<Vec<_>>();
            for (pair, probabilities) in probabilities.iter().enumerate() {
                for (next, probability) in probabilities.iter().enumerate() {
                    moved[self.step(pair, next)] += 0.5 * shares[pair] * probability;
                }
            }
            let change: f64 = moved.iter().zip(&shares).map(|(new, old)| (new - old).abs()).sum();
            shares = moved;
            if change < 1e-14 {
                return shares;
            }
        }
    }

    fn entropies(&self) -> Entropies {
        let shares = self.stationary();
        let second = shares.chunks_exact(self.letters).map(|row| {
            let total: f64 = row.iter().sum();
            total * entropy(row.iter().map(|share| share / total.max(f64::MIN_POSITIVE)))
        });
        let rate = shares.iter().enumerate().map(|(pair, share)| share * entropy(self.probabilities(pair)));
        Entropies { second: second.sum(), rate: rate.sum() }
    }
}

impl Entropies {
    fn block(&self, context: usize) -> f64 {
        assert!(context > 0, "a window has a target");
        (self.second + (context - 1) as f64 * self.rate) / context as f64
    }
}

/// The entropy of a distribution in nats.
fn entropy(probabilities: impl IntoIterator<Item = f64>) -> f64 {
    probabilities.into_iter().filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters a and b: after aa always b, after bb always a, after ab and ba either with probability 1/2. The pairs'
    /// shares are aa 1/6, ab 1/3, ba 1/3, bb 1/6, so the rate is 2/3 ln 2; after one letter the other has
    /// probability 2/3.
    #[test]
    fn entropies_of_a_chain_by_hand() {
        let source = Source::from_weights(2, |a, b, next| match (a, b) {
            (0, 0) => 5 * u64::from(next == 1),
            (1, 1) => 5 * u64::from(next == 0),
            _ => 3,
        });
        for (found, expected) in source.stationary().into_iter().zip([1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0]) {
            assert!((found - expected).abs() < 1e-13, "{found} is not {expected}");
        }
        let entropies = source.entropies();
        let (ln2, ln3) = (2f64.ln(), 3f64.ln());
        let (second, rate) = (ln3 - 2.0 / 3.0 * ln2, 2.0 / 3.0 * ln2);
        assert!((entropies.second - second).abs() < 1e-13 && (entropies.rate - rate).abs() < 1e-13);
        assert!((entropies.block(1) - second).abs() < 1e-13);
        assert!((entropies.block(4) - (second + 3.0 * rate) / 4.0).abs() < 1e-13);
    }

    /// The mean surprise of the text, with the standard error from batches of 1,000 characters, which are as good as
    /// independent.
    #[test]
    fn the_entropy_rate_is_the_mean_surprise_of_the_text() {
        let source = Source::new();
        let text = source.sample(SEED, CHARACTERS);
        let surprises: Vec<f64> = text.windows(3).map(|w| -source.probabilities(w[0] * 16 + w[1])[w[2]].ln()).collect();
        let batches: Vec<f64> =
            surprises.chunks(1000).map(|batch| batch.iter().sum::<f64>() / batch.len() as f64).collect();
        let n = batches.len() as f64;
        let mean = batches.iter().sum::<f64>() / n;
        let error = (batches.iter().map(|batch| (batch - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
        let entropies = source.entropies();
        assert!((mean - entropies.rate).abs() < 3.0 * error, "{mean} is not {} +- {error}", entropies.rate);
        assert!(error < 2e-3, "{error}");
        assert!((1.3..1.5).contains(&entropies.rate), "{}", entropies.rate);
        assert!(entropies.second > entropies.rate + 0.3, "{}", entropies.second);
    }

    #[test]
    fn the_text_is_made_of_words_and_the_same_everywhere() {
        let data = load().unwrap();
        assert_eq!((data.vocabulary.as_slice(), data.train.len(), data.test.len()), (&LETTERS[..], 900_000, 100_000));
        let text: String = data.train.iter().chain(&data.test).map(|&token| LETTERS[token as usize]).collect();
        assert!(!text.contains("  "));
        let words = text.split(' ').filter(|word| word.len() > 1).count();
        assert!((4.0..10.0).contains(&(text.len() as f64 / words as f64)), "{words} words");
        assert_eq!(data.sha256, "a1d012e0de85d110f95316b609d0183aee633b989613dd231d6d466abe81df1c");
        assert_eq!(data.floor, Some(Source::new().entropies().rate));
        assert!((block_entropy(64) - data.floor.unwrap()) * 64.0 > 0.3);
    }
}

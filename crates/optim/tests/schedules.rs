//! Schedules against references from outside, and their properties.

use optim::schedule::{self, Defaults, Schedule};
use optim::{Group, rules};
use serde::Deserialize;
use std::f64::consts::PI;

const RUN: Defaults = Defaults { lr: Some(0.1), steps: Some(100) };

/// One of each, and the corners of each.
const TEXTS: &[&str] = &[
    "constant:lr=0.1",
    "constant:lr=0",
    "constant:lr=5e-324",
    "constant:lr=1.7976931348623157e308",
    "constant:lr=0.30000000000000004",
    "linear:lr=0,end_lr=0.3,steps=37",
    "linear:lr=1e-3,end_lr=1e-5,steps=18446744073709551615",
    "linear:lr=1.7976931348623157e308,end_lr=0,steps=3",
    "cosine:lr=0.1,min_lr=0.001,steps=80",
    "cosine:lr=0.001,min_lr=0.1,steps=1",
    "cosine:lr=1.7976931348623157e308,min_lr=0,steps=3",
    "warmup_cosine:lr=0.1,warmup=10,min_lr=0.001,steps=80",
    "warmup_cosine:lr=0.1,warmup=0,min_lr=0.001,steps=1",
    "warmup_cosine:lr=0.1,warmup=1,min_lr=0.001,steps=1",
    "warmup_cosine:lr=0.1,warmup=80,min_lr=0,steps=80",
    "warmup_cosine:lr=0.1,warmup=18446744073709551615,min_lr=0,steps=18446744073709551615",
    "step:lr=0.1,gamma=0.1,size=30",
    "step:lr=0.1,gamma=1.5,size=1",
    "step:lr=0,gamma=1e300,size=1",
    "multi_step:lr=0.1,gamma=0.1,milestones=30/60/80",
    "multi_step:lr=0.1,gamma=0,milestones=0/18446744073709551615",
    "exponential:lr=0.1,gamma=0.97",
    "exponential:lr=1e300,gamma=1.7976931348623157e308",
    "exponential:lr=0.1,gamma=1",
    "exponential:lr=0.1,gamma=0",
    "polynomial:lr=0.1,end_lr=0.01,power=2.5,steps=60",
    "polynomial:lr=0.1,end_lr=0.2,power=1e300,steps=60",
    "polynomial:lr=0.1,end_lr=0,power=0,steps=60",
    "inverse_sqrt:lr=0.1,warmup=20",
    "inverse_sqrt:lr=0.1,warmup=18446744073709551615",
    "linear:lr=0,end_lr=0.1,steps=10 until 10 then cosine:lr=0.1,min_lr=0,steps=90",
    "constant:lr=1 until 1 then constant:lr=2 until 2 then step:lr=1,gamma=0.5,size=3",
    "constant:lr=1 until 18446744073709551615 then constant:lr=2",
];

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Updates where something may happen: small ones, powers of two and their neighbours, the largest.
fn updates() -> impl Iterator<Item = u64> {
    (0..200).chain((8..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])).chain([u64::MAX - 1, u64::MAX])
}

#[test]
fn equals_the_references_at_every_update() {
    #[derive(Deserialize)]
    struct Reference {
        name: String,
        text: String,
        reference: String,
        values: Vec<f64>,
    }
    let references: Vec<Reference> = serde_json::from_str(include_str!("fixtures/schedules.json")).unwrap();
    let named: Vec<&str> = references.iter().map(|case| case.text.split(':').next().unwrap()).collect();
    let pieces = ["constant", "linear", "cosine", "warmup_cosine", "step", "multi_step", "exponential", "polynomial"];
    for piece in pieces.iter().chain(&["inverse_sqrt"]) {
        assert!(named.contains(piece), "no reference for {piece}");
    }
    for Reference { name, text, reference, values } in references {
        let schedule = schedule(&text);
        let peak = values.iter().copied().fold(0.0, f64::max);
        assert!(values.len() >= 60, "{name}: {} values", values.len());
        for (t, value) in values.into_iter().enumerate() {
            let ours = schedule.at(t as u64);
            assert!((ours - value).abs() <= 1e-12 * peak, "{name} at {t}: {ours}, by {reference} {value}");
        }
    }
}

#[test]
fn prints_and_parses_to_itself() {
    for text in TEXTS {
        let parsed = schedule(text);
        assert_eq!(schedule(&parsed.to_string()), parsed, "{text}");
        let json = serde_json::to_string(&parsed).unwrap();
        assert_eq!(json, format!("\"{parsed}\""));
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), parsed);
    }
    assert!(serde_json::from_str::<Schedule>("\"cosine:lr=-1,steps=3\"").is_err());
}

#[test]
fn every_value_is_finite_and_not_negative() {
    for text in TEXTS {
        let schedule = schedule(text);
        for t in updates() {
            let value = schedule.at(t);
            assert!(value >= 0.0 && value.is_finite(), "{text} at {t}: {value}");
        }
    }
}

#[test]
fn ends_and_peaks_are_exact() {
    let table: &[(&str, &[(u64, f64)])] = &[
        ("linear:lr=0.1,end_lr=0.7,steps=7", &[(0, 0.1), (7, 0.7)]), // 0.7 + (0.1 - 0.7) is not 0.1
        ("linear:lr=0.3,end_lr=0.1,steps=7", &[(0, 0.3), (7, 0.1), (8, 0.1), (u64::MAX, 0.1)]),
        ("cosine:lr=0.3,min_lr=0.1,steps=7", &[(0, 0.3), (7, 0.1), (14, 0.1), (u64::MAX, 0.1)]),
        ("polynomial:lr=0.3,end_lr=0.1,power=3,steps=7", &[(0, 0.3), (7, 0.1), (u64::MAX, 0.1)]),
        ("warmup_cosine:lr=0.3,warmup=7,min_lr=0.1,steps=21", &[(6, 0.3), (20, 0.1), (21, 0.1), (u64::MAX, 0.1)]),
        ("warmup_cosine:lr=0.3,warmup=1,min_lr=0.1,steps=2", &[(0, 0.3), (1, 0.1), (2, 0.1)]),
        ("warmup_cosine:lr=0.3,warmup=0,min_lr=0.1,steps=1", &[(0, 0.1), (1, 0.1)]),
        ("warmup_cosine:lr=0.3,warmup=1,min_lr=0.1,steps=1", &[(0, 0.3), (1, 0.1)]),
        ("warmup_cosine:lr=0.3,warmup=4,min_lr=0.1,steps=4", &[(0, 0.075), (3, 0.3), (4, 0.1), (u64::MAX, 0.1)]),
        ("inverse_sqrt:lr=0.3,warmup=4", &[(0, 0.075), (3, 0.3), (15, 0.15)]),
        ("step:lr=1,gamma=0.5,size=3", &[(2, 1.0), (3, 0.5), (5, 0.5), (6, 0.25), (u64::MAX, 0.0)]),
        ("multi_step:lr=1,gamma=0.5,milestones=0/3", &[(0, 0.5), (2, 0.5), (3, 0.25), (u64::MAX, 0.25)]),
        ("exponential:lr=1,gamma=2", &[(0, 1.0), (10, 1024.0), (u64::MAX, f64::MAX)]),
    ];
    for (text, values) in table {
        for (t, value) in *values {
            assert_eq!(schedule(text).at(*t), *value, "{text} at {t}");
        }
    }
    for (warmup, steps) in [(1, 1), (1, 9), (2, 3), (3, 1000), (7, 7), (999, 1000)] {
        for lr in [0.1, 3e-4, 1.0 / 3.0, 6e-5] {
            let schedule = Schedule::warmup_cosine(lr, warmup, lr / 7.0, steps).unwrap();
            assert_eq!(schedule.at(warmup - 1), lr);
            assert!((0..2 * steps).all(|t| schedule.at(t) <= lr), "{schedule}");
        }
    }
}

/// Between neighbouring updates nothing moves more than a smooth curve of this length may.
#[test]
fn pieces_are_continuous() {
    let (lr, n) = (0.1, 1000);
    let table = [
        Schedule::linear(lr, 0.0, n),
        Schedule::cosine(lr, 0.0, n),
        Schedule::warmup_cosine(lr, n / 4, 0.0, n),
        Schedule::polynomial(lr, 0.0, 2.0, n),
        Schedule::inverse_sqrt(lr, n / 4),
        Schedule::wsd(lr, n / 4, n / 4, n),
        Schedule::one_cycle(lr, n / 4, n),
    ];
    for schedule in table {
        let schedule = schedule.unwrap();
        for t in 0..2 * n {
            let jump = (schedule.at(t + 1) - schedule.at(t)).abs();
            assert!(jump <= 7.0 * lr / n as f64, "{schedule} jumps by {jump} at {t}");
        }
    }
}

#[test]
fn until_counts_from_the_start_of_the_whole() {
    let [a, b, c] =
        ["linear:lr=0,end_lr=1,steps=10", "cosine:lr=1,min_lr=0.5,steps=20", "exponential:lr=0.5,gamma=0.9"];
    let text = format!("{a} until 10 then {b} until 30 then {c}");
    let [a, b, c] = [a, b, c].map(schedule);
    let chain = a.clone().then(10, b.clone()).then(30, c.clone());
    assert_eq!(schedule(&text), chain);
    assert_eq!(a.clone().then(10, b.clone().then(20, c.clone())), chain);
    assert_eq!(chain.to_string(), text);
    for t in 0..200 {
        let expected = match t {
            0..10 => a.at(t),
            10..30 => b.at(t - 10),
            _ => c.at(t - 30),
        };
        assert_eq!(chain.at(t), expected, "at {t}");
    }
    // What is never reached is dropped.
    assert_eq!(chain.clone().then(10, c.clone()), a.clone().then(10, c.clone()));
    assert_eq!(chain.clone().then(0, c.clone()), c);
    assert_eq!(a.clone().then(u64::MAX, chain.clone()).at(u64::MAX), 0.0);
    assert_eq!(a.clone().then(5, a.clone().then(u64::MAX, b)), a.clone().then(5, a));
}

#[test]
fn a_chain_of_many_pieces_needs_no_deep_stack() {
    let text = (1..100_000).map(|t| format!("constant:lr={t} until {t} then ")).collect::<String>() + "constant:lr=0";
    let schedule = schedule(&text);
    assert_eq!([0, 5000, 99_998, 99_999].map(|t| schedule.at(t)), [1.0, 5001.0, 99_999.0, 0.0]);
    assert_eq!(schedule.to_string(), text);
}

#[test]
fn recipes_equal_their_sources() {
    let near = |schedule: &Schedule, t: u64, value: f64| {
        let ours = schedule.at(t);
        assert!((ours - value).abs() <= 1e-13, "{schedule} at {t}: {ours}, expected {value}");
    };
    let cosine = |a: f64, b: f64, p: f64| b + (a - b) * (1.0 + (PI * p).cos()) / 2.0;
    for (warmup, decay, steps) in [(10, 20, 100), (0, 0, 100), (1, 99, 100), (0, 100, 100), (100, 0, 100), (2, 1, 3)] {
        let schedule = Schedule::wsd(0.1, warmup, decay, steps).unwrap();
        for t in 0..steps {
            near(
                &schedule,
                t,
                match t {
                    t if t < warmup => 0.1 * (t + 1) as f64 / warmup as f64,
                    t if t < steps - decay => 0.1,
                    t => 0.1 * (steps - t) as f64 / decay as f64,
                },
            );
        }
        near(&schedule, steps, 0.0);
    }
    // PyTorch's OneCycleLR with pct_start = warmup / steps: phases end at warmup - 1 and at steps - 1.
    for (warmup, steps) in [(30, 100), (1, 10), (2, 10), (9, 10)] {
        let schedule = Schedule::one_cycle(0.1, warmup, steps).unwrap();
        for t in 0..steps {
            near(
                &schedule,
                t,
                if t < warmup - 1 {
                    cosine(0.1 / 25.0, 0.1, t as f64 / (warmup - 1) as f64)
                } else {
                    cosine(0.1, 0.1 / 25.0 / 1e4, (t - (warmup - 1)) as f64 / (steps - warmup) as f64)
                },
            );
        }
    }
    assert_eq!(Schedule::one_cycle(0.1, 10, 10).unwrap().at(9), 0.1);
    // PyTorch's CosineAnnealingWarmRestarts(T_0 = period, T_mult = mult).
    for (period, mult) in [(10, 1), (10, 2), (7, 3), (200, 1), (100, 1)] {
        let schedule = Schedule::cosine_restarts(0.1, 0.01, period, mult, 100).unwrap();
        let (mut in_cycle, mut length) = (0, period);
        for t in 0..100 {
            near(&schedule, t, cosine(0.1, 0.01, in_cycle as f64 / length as f64));
            in_cycle += 1;
            if in_cycle == length {
                (in_cycle, length) = (0, length * mult);
            }
        }
    }
    let longest = Schedule::cosine_restarts(0.1, 0.0, 1, 2, u64::MAX).unwrap();
    assert_eq!(longest.at(u64::MAX - 1), longest.at(u64::MAX - 1).clamp(0.0, 0.1));
}

#[test]
fn absent_keys_come_from_the_defaults() {
    let table = [
        ("constant", "constant:lr=0.1"),
        (" constant ", "constant:lr=0.1"),
        ("constant: lr = 3", "constant:lr=3"),
        ("linear", "linear:lr=0.1,end_lr=0,steps=100"),
        ("cosine:min_lr=1e-4", "cosine:lr=0.1,min_lr=0.0001,steps=100"),
        ("warmup_cosine", "warmup_cosine:lr=0.1,warmup=10,min_lr=0,steps=100"),
        ("warmup_cosine:steps=5", "warmup_cosine:lr=0.1,warmup=1,min_lr=0,steps=5"),
        ("step", "step:lr=0.1,gamma=0.1,size=34"),
        ("multi_step", "multi_step:lr=0.1,gamma=0.1,milestones=50/75"),
        ("multi_step: milestones = 3 / 5", "multi_step:lr=0.1,gamma=0.1,milestones=3/5"),
        ("polynomial", "polynomial:lr=0.1,end_lr=0,power=1,steps=100"),
        ("inverse_sqrt", "inverse_sqrt:lr=0.1,warmup=10"),
        (
            "wsd",
            "linear:lr=0.01,end_lr=0.1,steps=9 until 9 then constant:lr=0.1 until 90 then linear:lr=0.1,end_lr=0,steps=10",
        ),
        ("one_cycle", "cosine:lr=0.004,min_lr=0.1,steps=29 until 29 then cosine:lr=0.1,min_lr=4e-7,steps=70"),
        (
            "cosine_restarts:period=20,mult=2",
            "cosine:lr=0.1,min_lr=0,steps=20 until 20 then cosine:lr=0.1,min_lr=0,steps=40 until 60 then cosine:lr=0.1,min_lr=0,steps=80",
        ),
        // A piece that ends at its `until` is that long; the last one takes what remains.
        (
            "linear:lr=0,end_lr=1 until 10 then cosine",
            "linear:lr=0,end_lr=1,steps=10 until 10 then cosine:lr=0.1,min_lr=0,steps=90",
        ),
        (
            "constant until 10 then linear until 30 then step",
            "constant:lr=0.1 until 10 then linear:lr=0.1,end_lr=0,steps=20 until 30 then step:lr=0.1,gamma=0.1,size=24",
        ),
        ("constant until 500 then cosine", "constant:lr=0.1 until 500 then cosine:lr=0.1,min_lr=0,steps=1"),
        ("constant\n until\t7  then constant:lr=1", "constant:lr=0.1 until 7 then constant:lr=1"),
    ];
    for (text, canonical) in table {
        let parsed = Schedule::parse(text, &RUN).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parsed.to_string(), canonical, "{text}");
    }
    let left = Schedule::parse("exponential", &RUN).unwrap().at(100);
    assert!((left - 0.001).abs() < 1e-15, "{left}");
    // Text that says its own length needs no run.
    assert_eq!(schedule("warmup_cosine:lr=1,steps=50").to_string(), "warmup_cosine:lr=1,warmup=5,min_lr=0,steps=50");
    assert_eq!(
        schedule("linear:lr=1 until 8 then constant:lr=0").to_string(),
        "linear:lr=1,end_lr=0,steps=8 until 8 then constant:lr=0"
    );
    // Every run length gives valid defaults.
    for steps in [1, 2, 3, 7, u64::MAX - 1, u64::MAX] {
        for entry in schedule::all() {
            let parsed = Schedule::parse(entry.name, &Defaults { lr: Some(0.1), steps: Some(steps) });
            let parsed = parsed.unwrap_or_else(|error| panic!("{} for {steps}: {error}", entry.name));
            assert!(updates().all(|t| (0.0..=0.1).contains(&parsed.at(t))), "{parsed}");
        }
    }
}

#[test]
fn the_table_is_what_the_parser_reads() {
    let names: Vec<_> = schedule::all().iter().map(|entry| entry.name).collect();
    let expected = "constant linear cosine warmup_cosine step multi_step exponential polynomial inverse_sqrt wsd one_cycle cosine_restarts";
    assert_eq!(names.join(" "), expected);
    for entry in schedule::all() {
        assert!(!entry.doc.is_empty() && !entry.formula.is_empty());
        let default = Schedule::parse(entry.name, &RUN).unwrap();
        for key in entry.keys {
            // Each key is read, matters, and says what it allows.
            let value = match key.name {
                "milestones" => "1/2",
                "lr" | "min_lr" | "end_lr" | "power" | "gamma" => "0.5",
                _ => "40",
            };
            let changed = Schedule::parse(&format!("{}:{}={value}", entry.name, key.name), &RUN).unwrap();
            assert_ne!(changed, default, "{}:{}", entry.name, key.name);
            let error = Schedule::parse(&format!("{}:{}=x", entry.name, key.name), &RUN).unwrap_err().to_string();
            assert!(error.contains(key.name) && error.contains(key.allowed), "{error}");
        }
        if default.to_string().starts_with(&format!("{}:", entry.name)) {
            let keys = default.to_string();
            let keys: Vec<_> = keys.split([':', ',']).skip(1).map(|pair| pair.split('=').next().unwrap()).collect();
            assert_eq!(keys, entry.keys.iter().map(|key| key.name).collect::<Vec<_>>());
        }
    }
}

#[test]
fn errors_name_the_thing_the_value_and_what_is_allowed() {
    const KNOWN: &str = "(constant, linear, cosine, warmup_cosine, step, multi_step, exponential, polynomial, inverse_sqrt, wsd, one_cycle, cosine_restarts)";
    let number = "a finite number, 0 or more";
    let whole = "a whole number from 0 to 2^64 - 1";
    let positive = "a whole number from 1 to 2^64 - 1";
    let rising = "rising whole numbers, joined by /";
    let table = [
        ("", format!("unknown schedule ``: known are {KNOWN}")),
        ("nothing", format!("unknown schedule `nothing`: known are {KNOWN}")),
        ("cosin:lr=1", format!("unknown schedule `cosin`: did you mean `cosine`? {KNOWN}")),
        ("warmup_cosin", format!("unknown schedule `warmup_cosin`: did you mean `warmup_cosine`? {KNOWN}")),
        ("constant:lr=1 until 5 then exp", format!("unknown schedule `exp`: did you mean `exponential`? {KNOWN}")),
        ("cosine lr=1", format!("unknown schedule `cosine lr=1`: did you mean `cosine`? {KNOWN}")),
        ("cosine:min-rl=1", "schedule cosine has no key `min-rl`: did you mean `min_lr`? (lr, min_lr, steps)".into()),
        ("cosine:beta=1", "schedule cosine has no key `beta`: known are (lr, min_lr, steps)".into()),
        ("cosine:\nlr\n=\nx\ny", format!("schedule cosine: lr=\"x y\" cannot be read; allowed: {number}")),
        ("cosine", "schedule cosine: lr is missing; its default, the optimizer's lr, is not known here: write lr=..".into()),
        ("cosine:lr=1", "schedule cosine: steps is missing; its default, the run's length, is not known here: write steps=..".into()),
        ("step:lr=1", "schedule step: size is missing; its default, a third of steps, rounded up, is not known here: write size=..".into()),
        ("constant:lr=fast", format!("schedule constant: lr=\"fast\" cannot be read; allowed: {number}")),
        ("constant:lr=", format!("schedule constant: lr=\"\" cannot be read; allowed: {number}")),
        ("constant:lr=-1", format!("schedule constant: lr=-1 is out of range; allowed: {number}")),
        ("constant:lr=NaN", format!("schedule constant: lr=NaN is out of range; allowed: {number}")),
        ("constant:lr=1e999", format!("schedule constant: lr=inf is out of range; allowed: {number}")),
        ("polynomial:lr=1,power=-2,steps=3", format!("schedule polynomial: power=-2 is out of range; allowed: {number}")),
        ("exponential:lr=1,gamma=-0.5", format!("schedule exponential: gamma=-0.5 is out of range; allowed: {number}")),
        ("cosine:lr=1,steps=0", format!("schedule cosine: steps=0 is out of range; allowed: {positive}")),
        ("cosine:lr=1,steps=1.5", format!("schedule cosine: steps=\"1.5\" cannot be read; allowed: {positive}")),
        ("cosine:lr=1,steps=-1", format!("schedule cosine: steps=\"-1\" cannot be read; allowed: {positive}")),
        ("cosine:lr=1,steps=18446744073709551616", format!("schedule cosine: steps=\"18446744073709551616\" cannot be read; allowed: {positive}")),
        ("step:lr=1,size=0", format!("schedule step: size=0 is out of range; allowed: {positive}")),
        ("inverse_sqrt:lr=1,warmup=0", format!("schedule inverse_sqrt: warmup=0 is out of range; allowed: {positive}")),
        ("warmup_cosine:lr=1,warmup=x,steps=9", format!("schedule warmup_cosine: warmup=\"x\" cannot be read; allowed: {whole}")),
        ("warmup_cosine:lr=1,warmup=10,steps=9", "schedule warmup_cosine: warmup=10 is out of range; allowed: at most steps=9".into()),
        ("wsd:lr=1,warmup=10,steps=9", "schedule wsd: warmup=10 is out of range; allowed: at most steps=9".into()),
        ("wsd:lr=1,warmup=5,decay=5,steps=9", "schedule wsd: decay=5 is out of range; allowed: at most steps=9 less warmup=5".into()),
        ("one_cycle:lr=1,warmup=10,steps=9", "schedule one_cycle: warmup=10 is out of range; allowed: at most steps=9".into()),
        ("cosine_restarts:lr=1,period=1,steps=1001", "schedule cosine_restarts: period=1 is out of range; allowed: at most 1000 periods in steps=1001".into()),
        ("multi_step:lr=1,milestones=60/30", format!("schedule multi_step: milestones=60/30 is out of range; allowed: {rising}")),
        ("multi_step:lr=1,milestones=30/30", format!("schedule multi_step: milestones=30/30 is out of range; allowed: {rising}")),
        ("multi_step:lr=1,milestones=", format!("schedule multi_step: milestones=\"\" cannot be read; allowed: {rising}")),
        ("multi_step:lr=1,milestones=3/x", format!("schedule multi_step: milestones=\"3/x\" cannot be read; allowed: {rising}")),
        ("constant:lr=1,lr=2", "schedule \"lr=2\": this key is given twice".into()),
        ("constant:", "schedule \"\": must have the form key=value".into()),
        ("constant:lr", "schedule \"lr\": must have the form key=value".into()),
        ("constant:lr=1,", "schedule \"\": must have the form key=value".into()),
        ("constant:lr=1 until", "schedule \"constant:lr=1 until\": a number must follow `until`".into()),
        ("constant:lr=1 until 3", "schedule \"constant:lr=1 until 3\": `then` and a schedule must follow `until` and its number".into()),
        ("constant:lr=1 then constant:lr=2", "schedule \"constant:lr=1 then constant:lr=2\": `until` and a number must come before `then`".into()),
        ("constant:lr=1 until 3 then", format!("unknown schedule ``: known are {KNOWN}")),
        ("constant:lr=1 until x then constant:lr=2", format!("schedule join: until=\"x\" cannot be read; allowed: {positive}")),
        ("constant:lr=1 until 0 then constant:lr=2", "schedule join: until=0 is out of range; allowed: more than 0, where the piece starts".into()),
        ("constant:lr=1 until 5 then constant:lr=2 until 5 then constant:lr=3", "schedule join: until=5 is out of range; allowed: more than 5, where the piece starts".into()),
    ];
    for (text, message) in table {
        let error = text.parse::<Schedule>().expect_err(text).to_string();
        assert_eq!(error, message, "{text}");
        assert!(!error.contains('\n'));
    }
    // Defaults and constructors are checked as the text is.
    let run = Defaults { lr: Some(f64::NAN), steps: Some(0) };
    assert!(Schedule::parse("constant", &run).is_err());
    assert!(Schedule::parse("linear:lr=1", &run).is_err());
    assert!(Schedule::cosine(f64::INFINITY, 0.0, 1).is_err());
    assert!(Schedule::multi_step(0.1, 0.1, vec![]).is_err());
}

/// Counts the warnings of this thread.
struct Warnings(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_run_of_one_update_without_warmup_is_warned_of_once() {
    // The process warns once, so the warning must not have gone before: this test runs in a process of its own.
    const CHILD: &str = "OPTIM_TEST_WARNED_ONCE";
    if std::env::var_os(CHILD).is_none() {
        let name = "a_run_of_one_update_without_warmup_is_warned_of_once";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let warnings = std::sync::Arc::default();
    let count = |texts: &[&str]| {
        tracing::subscriber::with_default(Warnings(std::sync::Arc::clone(&warnings)), || {
            for text in texts {
                // The warning is of a schedule that is given to an optimizer.
                Group::new(vec![], rules::AdamW::default()).schedule("lr", schedule(text)).unwrap();
            }
        });
        warnings.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(
        count(&["warmup_cosine:lr=1,warmup=1,min_lr=0,steps=1", "warmup_cosine:lr=1,warmup=0,min_lr=0,steps=2"]),
        0
    );
    let corner = "warmup_cosine:lr=1,warmup=0,min_lr=0.5,steps=1";
    assert_eq!(count(&[corner, corner]), 1);
    assert_eq!(schedule(corner).at(0), 0.5);
}

//! What is taken, and what is refused.

use super::*;
use crate::config::options::Options;
use clap::Parser;
use std::{ffi::OsString, fs};

const ANY: Study = Study {
    name: "any",
    about: "",
    examples: &[],
    dataset: "digits",
    model: None,
    optimizers: &["adam"],
    first: None,
    schedules: &["cosine"],
    norm: None,
    peaks: &[],
    steps: None,
    own: &SPECIAL,
    probe: false,
    groups: |_| Ok(Vec::new()),
};

/// What a run has to go by, if nothing is wrong with it.
fn settings(args: &[OsString]) -> Result<Settings> {
    let args = [OsString::from("any")].into_iter().chain(args.iter().cloned());
    let options = Options::try_parse_from(args)?;
    let settings = Settings::of(&options)?.absolute()?;
    check_options(&ANY, &settings)?;
    resolve(&ANY, settings)
}

fn not_utf8() -> OsString {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStringExt::from_vec(b"a\xff".to_vec());
    #[cfg(not(unix))]
    std::os::windows::ffi::OsStringExt::from_wide(&[0x61, 0xd800])
}

/// Odd values that an option takes, and such that it refuses, with what it needs beside it.
fn values(key: &str) -> (Vec<OsString>, Vec<OsString>, &'static [&'static str]) {
    let path = (vec!["/x/ä b\"\\\n".into()], vec![not_utf8()], &[][..]);
    let all = |texts: &[&str]| texts.iter().map(OsString::from).collect::<Vec<_>>();
    let (taken, refused): (&[&str], &[&str]) = match key {
        "dataset" => (&["language"], &[]),
        "data_dir" | "text" => return path,
        "model" | "opt" | "schedule" => (&["a:b=\"\\\n,ä=1e400"], &[]),
        "recipe" => (&["llm"], &[]),
        "scale_recipe" => return (vec![], vec![], &["--recipe=llm"]),
        "lr" => (&["5e-324,1.7976931348623157e308", "0.1"], &["0", "-0.0", "inf", "1e400", "NaN", "-1", "1e-3,0.001"]),
        "norm" => (&["pre", "post", "both"], &["Pre"]),
        "tune_steps" => (&["1", "9223372036854775807"], &["0", "9223372036854775808", "18446744073709551615"]),
        "tune" => (&["1", "65536"], &["0", "65537", "9223372036854775808", "18446744073709551615"]),
        "space" => return (all(&["adam:lr=\"\\\n"]), vec![], &["--tune=1"]),
        "target_accuracy" => (&["1", "5e-324"], &["0", "-0.0", "1.0000001", "inf", "NaN", "-1"]),
        "target_loss" => (&["5e-324", "1.7976931348623157e308"], &["0", "-0.0", "inf", "1e400", "NaN", "-1"]),
        "seeds" => (&["1", "100000"], &["0", "100001", "4294967296", "9223372036854775808", "18446744073709551615"]),
        "batch_size" => (
            &["1", "9223372036854775807", "8,64,1"],
            &["0", "-1", "8,0", "8,,64", "8,", "", "8,64,8", "1,9223372036854775808", "9223372036854775808"],
        ),
        "epochs" | "steps" | "checkpoint_every" => {
            (&["1", "9223372036854775807"], &["0", "-1", "9223372036854775808", "18446744073709551615"])
        }
        "clip" => (
            &["0", "-0.0", "5e-324", "1.7976931348623157e308", "0,1,0.5"],
            &["-1", "inf", "1e400", "NaN", "1,-1", "1,inf", "1,,2", "0,1,1.0", "0,-0.0"],
        ),
        "ema" => (&["0", "5e-324", "0.9999999999999999"], &["1", "-1", "inf", "NaN"]),
        "lookahead" => (&["1", "9223372036854775807"], &["0", "-1", "9223372036854775808", "18446744073709551615"]),
        "max_loss" => (&["5e-324", "1.7976931348623157e308"], &["0", "-0.0", "-inf", "inf", "1e400", "NaN"]),
        "device" => (&["cpu", "cuda:18446744073709551615"], &[]),
        "augment" => (&["none", "random", "alternating"], &["true"]),
        "ops" => (&["descent", "candle"], &["x"]),
        "precision" => (&["f32", "tf32", "bf16"], &["f16"]),
        "threads" | "jobs" => (&["1"], &["0", "100000", "9223372036854775808", "18446744073709551615"]),
        _ => panic!("no values for {key}: which odd ones does it take?"),
    };
    (all(taken), all(refused), &[])
}

#[test]
fn every_value_that_is_taken_is_written_and_read_back_the_same() {
    for key in Settings::keys() {
        let name = format!("--{}", key.replace('_', "-"));
        let (taken, refused, beside) = values(&key);
        let args = |value: &OsString| -> Vec<OsString> {
            let mut arg = OsString::from(format!("{name}="));
            arg.push(value);
            [arg].into_iter().chain(beside.iter().map(OsString::from)).collect()
        };
        let mut taken: Vec<Vec<OsString>> = taken.iter().map(args).collect();
        if key == "scale_recipe" {
            taken.push(vec![name.clone().into(), beside[0].into()]);
        }
        assert!(!taken.is_empty());
        for args in taken {
            let settings = settings(&args).unwrap_or_else(|error| panic!("{args:?}: {error:#}"));
            let json: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("config.toml");
            fs::write(&file, settings.to_toml().unwrap()).unwrap();
            let options = Options::try_parse_from(["any".into(), "--config".into(), file.into_os_string()]).unwrap();
            let toml = Settings::of(&options).unwrap();
            // As text, in which -0 is not 0.
            for (format, read) in [("JSON", json), ("TOML", toml)] {
                assert_eq!(format!("{read:?}"), format!("{settings:?}"), "{args:?} in {format}");
            }
        }
        for value in refused {
            let message =
                crate::program::exit::one_line(&settings(&args(&value)).expect_err(&format!("{name} {value:?}")));
            assert!(message.contains(&name), "{name} {value:?}: {message}");
        }
    }
}

#[test]
fn a_schedule_is_checked_with_the_length_of_the_run() {
    let rule = optimizer::parse("adam").unwrap();
    let check = |text: &str, steps| check_schedule(text, &rule, NonZeroU64::new(steps));
    // Of no length, 0, is known which it is.
    for (text, steps) in [
        ("cosine_restarts:period=5", 0),
        ("cosine_restarts:period=5", 5_000),
        ("constant until 2000 then cosine_restarts:period=1", 0),
        ("constant until 2000 then cosine_restarts:period=1", 2_500),
    ] {
        check(text, steps).unwrap_or_else(|error| panic!("{text}, {steps}: {error:#}"));
    }
    for (text, steps, part) in [
        ("cosine_restarts:period=5", 5_001, "1000 periods"),
        ("cosine_restart", 0, "did you mean"),
        ("cosine:min=0", 0, "min"),
        ("cosine:min_lr=low", 0, "low"),
    ] {
        let message = format!("{:#}", check(text, steps).expect_err(text));
        assert!(message.contains(part), "{text}: {message}");
    }
}

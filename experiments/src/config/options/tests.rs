//! What a file holds, and what is said where it is wrong.

use super::*;

#[test]
fn options_override_the_file_and_the_result_reads_back() {
    let file = "dataset = [\"digits\"]\nopt = [\"adam\", \"lion\"]\nepochs = 3\nlr = [1e-3, 1]\nnorm = \"both\"\nops = \"candle\"\nprecision = \"bf16\"\n";
    let options = Settings { steps: NonZeroU64::new(7), opt: vec!["sgd".to_owned()], ..Default::default() };
    let settings = Settings::parse(file, Path::new(""), &options).unwrap();
    let expected = Settings {
        dataset: vec!["digits".to_owned()],
        opt: vec!["sgd".to_owned()],
        steps: NonZeroU64::new(7),
        lr: vec![1e-3, 1.0],
        norm: Some(Norm::Both),
        ops: Some(Operations::Candle),
        precision: Some(Precision::Bf16),
        ..Default::default()
    };
    assert_eq!(settings, expected);
    assert_eq!(Settings::parse(&settings.to_toml().unwrap(), Path::new(""), &Settings::default()).unwrap(), settings);
    assert_eq!(settings.given().unwrap(), ["--dataset", "--opt", "--lr", "--norm", "--steps", "--ops", "--precision"]);
}

#[test]
fn one_number_is_written_as_it_was_before_there_could_be_several() {
    let settings = |batch_size: &[usize], clip: &[f64]| Settings {
        batch_size: batch_size.iter().filter_map(|n| NonZeroUsize::new(*n)).collect(),
        clip: clip.to_vec(),
        ..Default::default()
    };
    for (settings, toml, json) in [
        (settings(&[], &[]), "", "{"),
        (settings(&[8], &[1.0]), "batch_size = 8\nclip = 1.0\n", "\"batch_size\":8,\"clip\":1.0"),
        (
            settings(&[8, 64], &[0.0, 0.5]),
            "batch_size = [8, 64]\nclip = [0.0, 0.5]\n",
            "\"batch_size\":[8,64],\"clip\":[0.0,0.5]",
        ),
    ] {
        assert_eq!(settings.to_toml().unwrap(), toml);
        let written = serde_json::to_string(&settings).unwrap();
        assert!(written.contains(json), "{written}");
        assert_eq!(serde_json::from_str::<Settings>(&written).unwrap(), settings);
        assert_eq!(Settings::parse(toml, Path::new(""), &Settings::default()).unwrap(), settings);
    }
    // As a person may write it.
    for (file, expected) in
        [("batch_size = [8]\nclip = [1]", settings(&[8], &[1.0])), ("clip = 1", settings(&[], &[1.0]))]
    {
        assert_eq!(Settings::parse(file, Path::new(""), &Settings::default()).unwrap(), expected, "{file}");
    }
}

#[test]
fn a_text_beside_other_data_sets_is_named_among_them() {
    let text = |dataset: &[&str], text: Option<&str>| Settings {
        dataset: dataset.iter().map(|name| name.to_string()).collect(),
        text: text.map(PathBuf::from),
        ..Default::default()
    };
    let both = text(&["text", "language"], Some("/abc"));
    for (file, given, expected) in [
        (&both, text(&[], None), both.clone()),
        (&both, text(&[], Some("/new")), text(&["text", "language"], Some("/new"))),
        (&both, text(&["digits"], None), text(&["digits"], None)),
        (&both, text(&["text"], None), text(&["text"], Some("/abc"))),
        (&text(&["digits"], None), text(&[], Some("/new")), text(&[], Some("/new"))),
    ] {
        let parsed = Settings::parse(&file.to_toml().unwrap(), Path::new(""), &given).unwrap();
        assert_eq!(parsed, expected, "{file:?} {given:?}");
    }
}

#[test]
fn paths_in_a_file_are_relative_to_its_folder() {
    let file = "data_dir = \"data\"\ntext = \"/abs/t.txt\"";
    let settings = Settings::parse(file, Path::new("sub/here"), &Settings::default()).unwrap();
    assert_eq!(settings.data_dir.unwrap(), Path::new("sub/here/data"));
    assert_eq!(settings.text.unwrap(), Path::new("/abs/t.txt"));
    let given = Settings { data_dir: Some("mine".into()), ..Default::default() };
    let settings = Settings::parse(file, Path::new("sub"), &given).unwrap();
    assert_eq!(settings.data_dir.unwrap(), Path::new("mine"));
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    for (file, parts) in [
        ("optt = [\"adam\"]", &["`optt`", "did you mean `opt`?"][..]),
        ("batch-size = 3", &["`batch-size`", "did you mean `batch_size`?"]),
        ("steps = 0", &["steps", "nonzero"]),
        ("steps = \"many\"", &["steps", "many"]),
        ("seeds = 1\nsteps = = 2", &["line 2"]),
        ("seeds = 1\n= 2", &["line 2"]),
        ("\n\n\n]", &["line 4"]),
        ("seeds = 1\nlr = [1]\nseeds = 2", &["line 3", "duplicate key `seeds`"]),
        ("lr = [1]\nseeds = 9223372036854775808", &["line 2", "`seeds`", "at most 9223372036854775807"]),
        ("max_loss = 18446744073709551616", &["line 1", "`max_loss`", "at most 9223372036854775807"]),
        ("dataset = \"digits\"", &["`dataset`", "digits"]),
        ("batch_size = 0", &["`batch_size`", "nonzero"]),
        ("batch_size = [8, -1]", &["`batch_size`", "-1"]),
        ("batch_size = \"many\"", &["`batch_size`", "many", "a number or an array of numbers"]),
        ("batch_size = 1.5", &["`batch_size`", "1.5"]),
        ("clip = [[1]]", &["`clip`", "f64"]),
        ("text = \"\"", &["`text` is empty"]),
        ("norm = 3", &["`norm` is 3", "pre, post, both"]),
        ("ops = [\"candle\"]", &["`ops`", "descent, candle"]),
        ("scale_recipe = 1", &["`scale_recipe`", "boolean"]),
        ("seeds = -1", &["`seeds`", "-1"]),
        ("steps = 1\nepochs = 1", &["`epochs` and `steps`"]),
        ("tune = 1\ntune_steps = 1", &["`tune` and `tune_steps`"]),
        ("norm = \"middle\"", &["middle", "pre"]),
        ("ops = \"torch\"", &["torch", "descent"]),
        ("precision = \"f16\"", &["f16", "bf16"]),
    ] {
        let message = format!("{:#}", Settings::parse(file, Path::new(""), &Settings::default()).unwrap_err());
        assert!(parts.iter().all(|part| message.contains(part)), "{file}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

//! The command line as a whole: its definition, what flags become, and what the verbs print.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::flags::{OfGenerate, OfRun, Takes};
use super::verbs::generate::{Destination, Generate};
use super::verbs::graph::{Graph, GraphFormat};
use super::verbs::run::Run;
use super::*;
use crate::config::{Given, SourceKind};
use clap::{CommandFactory, FromArgMatches};

/// The arguments of one verb, as a program of their own.
fn parse<A: Args + FromArgMatches>(args: &[&str]) -> Result<A, clap::Error> {
    let command = A::augment_args(clap::Command::new("verb").no_binary_name(true));
    A::from_arg_matches(&command.try_get_matches_from(args)?)
}

fn load<V: Takes>(flags: Vec<Given>) -> Result<Effective, String> {
    Effective::load(Layers { verb: V::DEFAULTS, flags, ..Layers::default() }).map_err(|problems| problems.to_string())
}

fn run(args: &[&str]) -> Result<Effective, String> {
    load::<OfRun>(parse::<Run>(args).map_err(|error| error.to_string())?.settings.given())
}

fn execute(args: &[&str]) -> Result<String, Failure> {
    let cli = Cli::try_parse_from(["tidemark"].iter().chain(args)).unwrap();
    let mut out = Vec::new();
    cli.verb.execute(&cli.global, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
    Run::augment_args(clap::Command::new("run")).debug_assert();
    Generate::augment_args(clap::Command::new("generate")).debug_assert();
}

#[test]
fn flags_of_run_become_settings() {
    let args = "--input a b* --input - --output t --trigger 5s --epoch-events 7 --watermark-delay 2h --dedup-retention 1h \
                --max-future-skew 0s --expected-ids 9 --workers 3 --curated --seed 1 --rate 2 --events 3 --users 4 \
                --log-level warn --log-format json --set sink.maintain_every=5m";
    let config = run(&args.split_whitespace().collect::<Vec<_>>()).unwrap().config;
    assert_eq!((config.source.kind, config.source.inputs.len()), (SourceKind::File, 3));
    assert_eq!(config.source.inputs, ["a", "b*", "-"]);
    assert_eq!((config.epochs.trigger.as_secs(), config.epochs.events), (5, 7));
    assert_eq!((config.dedup.watermark_delay.as_secs(), config.dedup.retention.as_secs()), (7200, 3600));
    assert_eq!((config.contract.max_future_skew.as_secs(), config.dedup.expected_ids), (0, 9));
    assert_eq!((config.runtime.worker_count(), config.output.curated), (3, true));
    let generator = config.generator;
    assert_eq!((generator.seed, generator.rate, generator.events, generator.users), (1, 2, 3, 4));
    assert_eq!((config.log.level.as_str(), config.log.format), ("warn", crate::config::LogFormat::Json));
    assert_eq!(config.sink.maintain_every.as_secs(), 300);
}

#[test]
fn hosts_are_a_list_or_a_file_with_one_on_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    std::fs::write(&file, "# the first one cuts epochs\na.internal:7400\n\n  b.internal:7400  \n").unwrap();
    let several = ["--processes", "2", "--set", "cluster.secret_file=secret", "--hosts"];
    let hosts = |given: &str| run(&[&several[..], &[given]].concat()).map(|loaded| loaded.config.cluster.hosts);
    assert_eq!(hosts("a.internal:7400,b.internal:7400").unwrap(), ["a.internal:7400", "b.internal:7400"]);
    assert_eq!(hosts(file.to_str().unwrap()).unwrap(), ["a.internal:7400", "b.internal:7400"]);
    let refused = hosts("no-such-file").unwrap_err();
    assert!(refused.contains("no-such-file") && refused.contains("HOST:PORT"), "{refused}");
}

#[test]
fn a_switch_can_be_turned_off_too() {
    assert!(!run(&["--curated=false"]).unwrap().config.output.curated);
    assert!(run(&["--curated=perhaps"]).unwrap_err().contains("allowed: true or false"));
}

#[test]
fn wrong_flags_are_reported_at_once_with_their_names() {
    let problems = run(&["--trigger", "soon", "--source", "kafka", "--set", "epochs.triger=1s"]).unwrap_err();
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 3, "{problems}");
    assert!(lines[0].starts_with("source.kind = \"kafka\" (flag --source): allowed: generate or file"));
    assert!(lines[1].starts_with("epochs.trigger = \"soon\" (flag --trigger): allowed: "));
    assert_eq!(lines[2], "epochs.triger (flag --set): unknown key; did you mean epochs.trigger?");
    let twice = run(&["--rate", "1", "--set", "generator.rate=2"]).unwrap_err();
    assert_eq!(twice, "generator.rate = \"2\" (flag --set): already given by flag --rate");
    assert!(run(&["--set", "rate"]).unwrap_err().contains("expected KEY=VALUE"));
}

#[test]
fn generate_has_its_own_defaults_and_one_destination() {
    let generate: Generate = parse(&["--out", "d", "--late", "0.2", "--start", "2026-01-01T00:00:00Z"]).unwrap();
    let generator = load::<OfGenerate>(generate.settings.given()).unwrap().config.generator;
    assert_eq!((generator.rate, generator.events, generator.late), (0, 100_000, 0.2));
    assert_eq!(generator.start, Some(1_767_225_600_000_000));
    assert_eq!(generate.destination(), Destination::Directory(std::path::Path::new("d")));
    assert_eq!(parse::<Generate>(&["--out", "-"]).unwrap().destination(), Destination::Stdout);
    assert_eq!(parse::<Generate>(&["--stdout"]).unwrap().destination(), Destination::Stdout);
    assert!(parse::<Generate>(&[]).is_err() && parse::<Generate>(&["--out", "d", "--stdout"]).is_err());
    assert!(parse::<Generate>(&["--stdout", "--trigger", "1s"]).is_err(), "a flag of run alone");
}

#[test]
fn help_names_the_default_of_the_verb() {
    let help = |command: clap::Command| {
        let text = command.clone().render_help().to_string();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let run = help(Run::augment_args(clap::Command::new("run")));
    let generate = help(Generate::augment_args(clap::Command::new("generate")));
    assert!(run.contains("[default: 100]") && !generate.contains("[default: 100]"), "{run}\n{generate}");
    assert!(run.contains("[possible values: generate, file, eventhubs]"), "{run}");
}

#[test]
fn a_graph_is_mermaid_unless_said_otherwise() {
    assert_eq!(parse::<Graph>(&[]).unwrap().format, GraphFormat::Mermaid);
    assert_eq!(parse::<Graph>(&["--format", "dot"]).unwrap().format, GraphFormat::Dot);
}

#[test]
fn config_show_names_the_flag_and_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    std::fs::write(&file, "[generator]\nusers = 9\n").unwrap();
    let file = file.to_str().unwrap();
    // The file is a flag of every verb, before it or after it.
    for args in [["--config", file, "config", "show"], ["config", "show", "--config", file]] {
        let text = execute(&[&args[..], &["--trigger", "3s"]].concat()).unwrap();
        assert!(text.contains("flag --trigger") && text.contains(&format!("{file}:2:1")), "{text}");
    }
    for format in ["json", "toml"] {
        let text = execute(&["config", "show", "--config", file, "--format", format]).unwrap();
        assert!(text.contains(&format!("{file}:2:1")), "{text}");
    }
}

#[test]
fn validate_says_yes_or_names_every_problem() {
    let text = execute(&["validate", "--rate", "5"]).unwrap();
    assert!(text.contains("is valid") && text.contains(" 1 not at their default"), "{text}");
    let failure = execute(&["validate", "--rate", "-5", "--workers", "-"]).unwrap_err();
    assert_eq!((failure.status, failure.lines.len()), (ExitStatus::Usage, 2), "{failure:?}");
}

#[test]
fn completions_know_verbs_flags_and_words() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = execute(&["completions", shell]).unwrap();
        let known = ["validate", "watermark-delay", "generate"].iter().all(|word| script.contains(word));
        assert!(known, "{shell}: {script}");
    }
}

#[test]
fn the_manual_has_a_page_for_each_verb() {
    let page = execute(&["man"]).unwrap();
    assert!(page.contains(".TH tidemark 1") && page.contains("Exit status"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    execute(&["man", "--out", directory.path().to_str().unwrap()]).unwrap();
    for verb in
        ["tidemark", "tidemark-validate", "tidemark-config-show", "tidemark-evidence", "tidemark-checkpoint-verify"]
    {
        assert!(directory.path().join(format!("{verb}.1")).is_file(), "{verb}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_verb_quietly() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for args in [["schema", "config"], ["completions", "bash"], ["config", "show"]] {
        let cli = Cli::try_parse_from(["tidemark"].iter().chain(&args)).unwrap();
        let failure = cli.verb.execute(&cli.global, &mut Gone).unwrap_err();
        assert_eq!(failure, Failure { status: ExitStatus::Done, lines: Vec::new() }, "{args:?}");
    }
}

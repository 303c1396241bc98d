//! What must not change the tables: workers, grouping into publications, order inside an epoch.

use crate::data::{Random, eventful, random_event};
use crate::oracle::{Partition, Rules, check};
use crate::program::Case;
use crate::tables::Tables;

/// Long enough a stream for watermarks to pass and ids to be forgotten.
fn case() -> (Case, Vec<Partition>) {
    let case = Case::of(&eventful(7, &[900, 500, 0, 730]));
    let partitions = Partition::of_directory(&case.path("in"));
    (case, partitions)
}

fn rules(epoch_events: usize) -> Rules {
    let hour_us = crate::data::HOUR_US;
    Rules { epoch_events, watermark_delay_us: 5 * hour_us, dedup_retention_us: 7 * hour_us, ..Rules::default() }
}

fn run(case: &Case, output: &str, rules: Rules, more: &[&str]) {
    let flags = rules.flags();
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    case.run(output, &args);
}

#[test]
fn tables_do_not_depend_on_the_number_of_workers() {
    let (case, partitions) = case();
    let rules = rules(100);
    let mut all = Vec::new();
    for workers in ["1", "2", "3"] {
        run(&case, workers, rules, &["--workers", workers, "--curated"]);
        all.push(check(&case.path(workers), &partitions, rules).without_times());
    }
    all[1].assert_equals(&all[0]);
    all[2].assert_equals(&all[0]);
}

#[test]
fn tables_equal_the_oracle_for_epochs_of_any_size() {
    let (case, partitions) = case();
    for (size, workers) in [(11, "2"), (64, "1"), (333, "3"), (900, "2"), (100_000, "1")] {
        let output = size.to_string();
        run(&case, &output, rules(size), &["--workers", workers]);
        check(&case.path(&output), &partitions, rules(size));
    }
}

#[test]
fn tables_do_not_depend_on_how_epochs_are_published_together() {
    let (case, partitions) = case();
    let rules = rules(150);
    let ways: [(&str, &[&str]); 3] = [
        ("each", &["--set", "sink.publish_interval=0ms", "--set", "epochs.max_in_flight=1"]),
        ("some", &["--set", "sink.publish_interval=100ms", "--set", "epochs.max_in_flight=3"]),
        ("all", &["--set", "sink.publish_interval=10s", "--set", "epochs.max_in_flight=1000"]),
    ];
    let mut tables: Vec<Tables> = Vec::new();
    let mut commits = Vec::new();
    for (output, settings) in ways {
        run(&case, output, rules, settings);
        tables.push(check(&case.path(output), &partitions, rules).without_times());
        commits.push(case.path(output).join("metrics/net_flow/_delta_log").read_dir().unwrap().count());
    }
    tables[1].assert_equals(&tables[0]);
    tables[2].assert_equals(&tables[0]);
    assert!(commits[0] > commits[2], "the ways do not differ: {commits:?}");
}

#[test]
fn metrics_do_not_depend_on_the_order_inside_an_epoch() {
    let mut random = Random(99);
    let size = 120;
    // Distinct ids, and a watermark that nothing falls behind.
    let mut partition = || (0..400).map(|index| random_event(&mut random, index / 40).line()).collect::<Vec<_>>();
    let straight = vec![partition(), partition()];
    let mut shuffled = straight.clone();
    let mut random = Random(5);
    shuffled.iter_mut().flat_map(|lines| lines.chunks_mut(size)).for_each(|epoch| random.shuffle(epoch));
    assert_ne!(straight, shuffled);

    let tables = [straight, shuffled].map(|partitions| {
        let case = Case::of(&partitions);
        // Both files are read side by side, `size` events of each.
        let rules = Rules { alignment_us: 2400 * crate::data::HOUR_US, ..Rules::epochs_of(2 * size) };
        run(&case, "out", rules, &["--workers", "2"]);
        check(&case.path("out"), &Partition::of_directory(&case.path("in")), rules)
    });
    let [straight, shuffled] = tables.map(|tables| tables.without_times().metrics());
    shuffled.assert_equals(&straight);
}

#[test]
fn generated_events_equal_the_oracle() {
    let case = Case::new();
    let args = "generate --out in --events 12000 --users 150 --partitions 3 --seed 11 --late 0.03 --duplicates 0.1 \
                --invalid 0.05 --disordered 0.2 --start 2025-01-01T00:00:00Z";
    let args: Vec<&str> = args.split_whitespace().collect();
    case.tidemark(&args).well();
    let partitions = Partition::of_directory(&case.path("in"));
    for (size, workers) in [(700, "2"), (2_000, "1")] {
        let output = size.to_string();
        case.run(&output, &["--epoch-events", &output, "--workers", workers, "--curated"]);
        let tables = check(&case.path(&output), &partitions, Rules::epochs_of(size));
        let sum = |column| tables.wholes(&crate::tables::HEALTH, column).iter().sum::<i128>();
        assert_eq!(sum("events_received"), 12_000);
        assert!(sum("late_events") > 50 && sum("duplicate_events") > 500 && sum("events_rejected") > 400);
    }
}

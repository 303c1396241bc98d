//! The dataflow as a drawing, taken from the dataflow itself: it is built once without input, and timely says what it
//! built. So the drawing cannot be out of date.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use tidemark_dataflows::arrangement::{Settings as IndexSettings, SweepRate};
use tidemark_dataflows::contract::Contract;
use tidemark_dataflows::event::Epoch;
use tidemark_dataflows::metrics::{Metric, Totals};
use tidemark_dataflows::payloads::PayloadCap;
use tidemark_dataflows::pipeline::{Inputs, Metrics, Outputs, Restored, Results, Settings, tidemark};
use tidemark_dataflows::watermark::Horizon;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Input;
use timely::dataflow::operators::generic::Operator;
use timely::logging::{TimelyEvent, TimelyEventBuilder};

use crate::sink::tables::{NetFlow, RejectedEvents, RunManifest, StreamHealth, Table, TransactionEvents};

/// Operators by number, and the channels between them.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    operators: BTreeMap<usize, String>,
    channels: Vec<(usize, usize)>,
}

impl Graph {
    /// The graph of one worker. The tables stand in for the operators that deliver to them.
    pub fn of_the_dataflow() -> Graph {
        timely::execute::execute_directly(|worker| {
            let graph = Rc::new(RefCell::new(Graph::default()));
            let seen = Rc::clone(&graph);
            if let Some(mut registry) = worker.log_register() {
                registry.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
                    for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                        seen.borrow_mut().learn(event);
                    }
                });
            }
            worker.dataflow_named::<Epoch, _, _>("Tidemark", |scope| {
                let (_, blocks) = scope.new_input::<Vec<_>>();
                let (_, marks) = scope.new_input::<Vec<_>>();
                let (_, behind) = scope.new_input::<Vec<_>>();
                let (_, checkpoints) = scope.new_input::<Vec<_>>();
                let settings = any_settings();
                let restored = Restored::nothing(&settings);
                let inputs = Inputs { blocks, marks, behind, checkpoints };
                name_the_ends(tidemark(inputs, &settings, restored, &mut MetricEnds));
            });
            if let Some(mut registry) = worker.log_register() {
                registry.flush();
                registry.remove("timely");
            }
            while worker.has_dataflows() {
                worker.step();
            }
            graph.take()
        })
    }

    fn learn(&mut self, event: TimelyEvent) {
        match event {
            // An address of two parts is an operator of the outermost scope.
            TimelyEvent::Operates(operator) => {
                if let [_, number] = operator.addr.as_slice() {
                    self.operators.insert(*number, operator.name);
                }
            }
            TimelyEvent::Channels(channel) => self.channels.push((channel.source.0, channel.target.0)),
            _ => {}
        }
    }

    /// For Markdown pages.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (number, name) in &self.operators {
            let _ = writeln!(text, "  op{number}[\"{name}\"]");
        }
        for (source, target) in &self.channels {
            let _ = writeln!(text, "  op{source} --> op{target}");
        }
        text
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        let mut text = "digraph tidemark {\n  rankdir = LR;\n  node [shape = box];\n".to_owned();
        for (number, name) in &self.operators {
            let _ = writeln!(text, "  op{number} [label = \"{name}\"];");
        }
        for (source, target) in &self.channels {
            let _ = writeln!(text, "  op{source} -> op{target};");
        }
        text + "}\n"
    }
}

fn end<C: timely::Container>(stream: Stream<'_, Epoch, C>, table: &str) {
    stream.sink(Pipeline, table, |(input, _)| input.for_each(|_, _| {}));
}

/// Ends each metric at its table.
struct MetricEnds;

impl<'s> Metrics<'s> for MetricEnds {
    fn restored<M: Metric>(&mut self) -> Vec<(M::Key, Totals)> {
        Vec::new()
    }

    fn take<M: Metric>(&mut self, results: Results<'s, M>) {
        end(results.rows, M::TABLE.0);
    }
}

fn name_the_ends(outputs: Outputs<'_>) {
    end(outputs.net_flow, &NetFlow::spec().name);
    end(outputs.accepted, &TransactionEvents::spec().name);
    end(outputs.rejected, &RejectedEvents::spec().name);
    end(outputs.summaries.clone(), &StreamHealth::spec().name);
    end(outputs.summaries, &RunManifest::spec().name);
}

/// The graph is the same for all settings, but that a cap on payloads adds an operator.
fn any_settings() -> Settings {
    Settings {
        contract: Contract { max_future_skew_us: 0, id_key: [0, 0], curated: false },
        index: IndexSettings {
            horizon: Horizon { watermark_delay_us: 0, dedup_retention_us: 0 },
            key: [0, 0],
            expected_ids: 0,
            sweep: SweepRate::default(),
        },
        log_admissions: None,
        payload_cap: PayloadCap::default(),
        witnesses: 1,
        uncounted: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Graph;

    #[test]
    fn blocks_reach_every_table() {
        let graph = Graph::of_the_dataflow();
        let number = |name: &str| *graph.operators.iter().find(|(_, found)| found.as_str() == name).unwrap().0;
        for table in
            ["metrics/net_flow", "metrics/user_metrics", "monitoring/rejected_events", "monitoring/stream_health"]
        {
            let mut reached = vec![number("Decode")];
            let mut next = 0;
            while let Some(from) = reached.get(next).copied() {
                let onward = graph.channels.iter().filter(|(source, _)| *source == from).map(|(_, target)| *target);
                let new: Vec<usize> = onward.filter(|target| !reached.contains(target)).collect();
                reached.extend(new);
                next += 1;
            }
            assert!(reached.contains(&number(table)), "{table}");
        }
        assert!(graph.mermaid().starts_with("flowchart LR\n") && graph.dot().ends_with("}\n"));
    }
}

//! `tidemark graph`: draws the dataflow.

use super::print;
use crate::exit::{ExitStatus, Failure};
use crate::report::graph;
use clap::{Args, ValueEnum};
use std::io::Write;

/// Arguments of `graph`.
#[derive(Debug, Clone, Args)]
pub struct Graph {
    /// Language of the drawing
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub format: GraphFormat,
}

/// Languages of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// For Markdown pages
    Mermaid,
    /// For Graphviz
    Dot,
}

impl Graph {
    /// Prints the drawing.
    pub(super) fn execute(&self, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let graph = graph::Graph::of_the_dataflow();
        match self.format {
            GraphFormat::Mermaid => print(out, graph.mermaid()),
            GraphFormat::Dot => print(out, graph.dot()),
        }
    }
}

//! `tidemark graph`: the arguments for drawing the dataflow.

use clap::{Args, ValueEnum};

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

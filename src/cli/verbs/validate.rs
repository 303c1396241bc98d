//! `tidemark validate`: checks the configuration, and on request what it names outside.

use super::print;
use crate::cli::flags::{OfRun, SettingFlags};
use crate::cli::{Global, check_memory};
use crate::config::{Origin, Place};
use crate::exit::{ExitStatus, Failure};
use crate::report::numbers::grouped;
use crate::report::requests::{Requests, of_a_day};
use crate::runtime::probe::probe;
use clap::Args;
use std::io::Write;

/// Arguments of `validate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  tidemark validate --config tidemark.toml")]
pub struct Validate {
    /// Also open the source and write to the output, and say what was found
    #[arg(long)]
    pub online: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags<OfRun>,
}

impl Validate {
    /// Says that the configuration is valid, and what is there.
    pub(super) fn execute(&self, global: &Global, out: &mut dyn Write) -> Result<ExitStatus, Failure> {
        let effective = global.load(&self.settings)?;
        let changed = effective.iter().filter(|(_, assigned)| assigned.origin != Origin::Default).count();
        let all = effective.iter().count();
        let mut text = format!("the configuration is valid: {all} settings, {changed} not at their default\n");
        if self.online {
            check_memory(&effective, effective.config.cluster.processes)?;
            effective.config.output.readable_by.keep_others_out();
            let found = probe(&effective.config)?;
            let size = found.bytes.map_or("of unknown size".to_owned(), |bytes| format!("{} bytes", grouped(bytes)));
            let tables = if found.tables { "holds tables of an earlier run" } else { "is free" };
            let output = effective.config.output.path.display();
            text += &format!("the source is there: {} partitions, {size}\n", found.partitions);
            text += &format!("the output can be written: {output} {tables}\n");
            if matches!(effective.config.output.path, Place::Azure(_)) {
                let Requests { writes, reads } = of_a_day(&effective.config);
                let [writes, reads] = [writes, reads].map(|count| grouped(count / 1_000 * 1_000));
                text += &format!(
                    "tables are published every {:?} at most: about {writes} requests a day that write, {reads} that read or \
                     list\n",
                    effective.config.publish_interval()
                );
            }
        }
        print(out, text)
    }
}

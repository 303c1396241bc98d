//! `/metrics`: the catalogue in the text format of OpenMetrics.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as RegistryUnit};

use super::board::Board;
use super::catalogue::{Kind, METRICS, Metric, Sample, Source, Unit, Value};

/// Media type of what [`text`] writes.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reads the catalogue's values whenever they are asked for.
struct Reading(Arc<Board>);

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let source = Source { board: &self.0, vitals: self.0.vitals() };
        for metric in METRICS {
            let samples = metric.samples(&source);
            if !samples.is_empty() {
                write(metric, &samples, &mut encoder)?;
            }
        }
        Ok(())
    }
}

fn write(metric: &Metric, samples: &[Sample], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let unit = match metric.unit {
        Unit::None => None,
        Unit::Seconds => Some(RegistryUnit::Seconds),
        Unit::Bytes => Some(RegistryUnit::Bytes),
    };
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut family = encoder.encode_descriptor(metric.stem, metric.help, unit.as_ref(), kind)?;
    for Sample { labels, value } in samples {
        if labels.is_empty() {
            write_value(value, &mut family)?;
        } else {
            write_value(value, &mut family.encode_family(labels)?)?;
        }
    }
    Ok(())
}

fn write_value(value: &Value, to: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match value {
        Value::Count(count) => to.encode_counter::<NoLabelSet, _, u64>(count, None),
        Value::Seconds(seconds) => to.encode_counter::<NoLabelSet, _, f64>(seconds, None),
        Value::Gauge(value) => to.encode_gauge(value),
        Value::Histogram(counted) => {
            to.encode_histogram::<NoLabelSet>(counted.sum, counted.count, &counted.buckets, None)
        }
    }
}

/// Everything as text.
pub(super) fn text(board: &Arc<Board>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Reading(Arc::clone(board))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

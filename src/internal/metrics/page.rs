//! Writes a page of metrics: families with a name, a unit and rows.

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
    },
    metrics::MetricType,
    registry::Unit,
};
use std::fmt::{Error, Result};

/// The label of a row. The encoder escapes its value.
type Label<'a> = (&'static str, &'a str);

/// The page being written.
#[derive(Debug)]
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

/// The metadata of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// The name without prefix, unit and `_total`.
    pub(super) name: &'static str,
    pub(super) unit: Measure,
    pub(super) help: &'static str,
}

/// The base units, and a plain count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Things,
    Seconds,
    Bytes,
}

impl Measure {
    fn unit(self) -> Option<&'static Unit> {
        static SECONDS: Unit = Unit::Seconds;
        static BYTES: Unit = Unit::Bytes;
        match self {
            Self::Things => None,
            Self::Seconds => Some(&SECONDS),
            Self::Bytes => Some(&BYTES),
        }
    }
}

impl Page<'_> {
    fn begin(
        &mut self,
        of: Family,
        kind: MetricType,
    ) -> std::result::Result<MetricEncoder<'_>, Error> {
        self.0.encode_descriptor(of.name, of.help, of.unit.unit(), kind)
    }

    pub(super) fn counter(
        &mut self,
        family: Family,
        value: impl EncodeCounterValue + Copy,
    ) -> Result {
        let mut metric = self.begin(family, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn counters<'r, V: EncodeCounterValue>(
        &mut self,
        family: Family,
        rows: impl IntoIterator<Item = (Label<'r>, V)>,
    ) -> Result {
        let mut metric = self.begin(family, MetricType::Counter)?;
        for (label, value) in rows {
            metric.encode_family(&[label])?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Writes a family of one row, or of none if there is no value.
    pub(super) fn gauge(&mut self, family: Family, value: impl Into<Option<f64>>) -> Result {
        let mut metric = self.begin(family, MetricType::Gauge)?;
        value.into().map_or(Ok(()), |value| metric.encode_gauge(&Plain(value)))
    }

    pub(super) fn gauges<'r, const N: usize>(
        &mut self,
        family: Family,
        rows: impl IntoIterator<Item = ([Label<'r>; N], f64)>,
    ) -> Result {
        let mut metric = self.begin(family, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&Plain(value))?;
        }
        Ok(())
    }

    pub(super) fn info<const N: usize>(
        &mut self,
        family: Family,
        labels: [Label<'_>; N],
    ) -> Result {
        self.begin(family, MetricType::Info)?.encode_info(&labels)
    }

    /// Each of the `buckets` has its upper bound in seconds and only its own count. The last has no
    /// bound.
    pub(super) fn histogram(
        &mut self,
        family: Family,
        sum: f64,
        count: u64,
        buckets: &[(f64, u64)],
    ) -> Result {
        let mut metric = self.begin(family, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

/// A number that is written without a decimal point if it is whole: `1`, not `1.0`.
struct Plain(f64);

impl EncodeGaugeValue for Plain {
    fn encode(&self, encoder: &mut prometheus_client::encoding::GaugeValueEncoder<'_>) -> Result {
        const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;
        if !self.0.is_finite() {
            return Err(Error);
        }
        if self.0.fract() == 0.0 && self.0.abs() < WHOLE_BELOW {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number, and an f64 holds all up to this one"
            )]
            let whole = self.0 as i64;
            return EncodeGaugeValue::encode(&whole, encoder);
        }
        EncodeGaugeValue::encode(&self.0, encoder)
    }
}

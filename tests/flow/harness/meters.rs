//! Counters and gauges of one test, as its thread recorded them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering},
};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};

type Registry = Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>;

/// Records what happens on this thread for as long as it lives; a test with a paused clock has only one.
pub struct Meters {
    counters: Registry,
    gauges: Registry,
    _guard: LocalRecorderGuard<'static>,
}

struct Memory {
    counters: Registry,
    gauges: Registry,
}

impl Meters {
    pub fn install() -> Self {
        let (counters, gauges) = (Registry::default(), Registry::default());
        let memory = Memory { counters: Arc::clone(&counters), gauges: Arc::clone(&gauges) };
        // The guard borrows the recorder; a test's recorder may as well live as long as the process.
        let guard = metrics::set_default_local_recorder(Box::leak(Box::new(memory)));
        Self { counters, gauges, _guard: guard }
    }

    /// The sum of a counter over all label sets that include these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value};")).collect();
        let counters = self.counters.lock().unwrap();
        counters
            .iter()
            .filter(|(key, _)| key.starts_with(&format!("{name};")))
            .filter(|(key, _)| wanted.iter().all(|label| key.contains(label)))
            .map(|(_, value)| value.load(Ordering::Relaxed))
            .sum()
    }

    /// A gauge by exactly these labels.
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Vec<_> = labels
            .iter()
            .map(|&(key, value)| metrics::Label::new(key.to_owned(), value.to_owned()))
            .collect();
        let gauges = self.gauges.lock().unwrap();
        let value = gauges.get(&written(&Key::from_parts(name.to_owned(), labels)))?;
        Some(f64::from_bits(value.load(Ordering::Relaxed)))
    }
}

fn written(key: &Key) -> String {
    let mut labels: Vec<_> =
        key.labels().map(|label| format!("{}={};", label.key(), label.value())).collect();
    labels.sort();
    format!("{};{}", key.name(), labels.concat())
}

fn cell(registry: &Registry, key: &Key) -> Arc<AtomicU64> {
    Arc::clone(registry.lock().unwrap().entry(written(key)).or_default())
}

impl Recorder for Memory {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(cell(&self.counters, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(cell(&self.gauges, key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

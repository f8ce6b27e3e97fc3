//! Metrics: what the process and its requests cost, as Prometheus reads it at `/metrics`.

mod http;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::Method;
use modelyard_kernel::part::Counter;
use modelyard_kernel::{Failure, Part, Permission, Result};
use parking_lot::{Mutex, RwLock};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// May read the metrics.
pub const READ: Permission = Permission("metrics:read");

/// Upper bounds in seconds. OpenTelemetry's, and finer below, where most of our answers are.
const BUCKETS: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];

/// The metrics of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    active: IntGauge,
    durations: HistogramVec,
    /// Those of `durations` that were used, by route: a request finds its own without writing
    /// labels.
    series: RwLock<HashMap<Box<str>, Vec<Series>>>,
    targets: IntGaugeVec,
    counters: Mutex<Vec<Counted>>,
}

#[derive(Debug)]
struct Series {
    method: &'static str,
    status: u16,
    durations: Histogram,
}

/// A slice's counter and its series for one service.
#[derive(Debug)]
struct Counted {
    service: String,
    counter: Counter,
    family: IntCounterVec,
}

impl Metrics {
    /// Metrics of this process alone.
    ///
    /// # Errors
    /// When a metric cannot be registered: a defect of ours.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let active = IntGauge::new("http_server_active_requests", "Requests being answered.")
            .map_err(Failure::internal)?;
        let duration = HistogramOpts::new(
            "http_server_request_duration_seconds",
            "Time from a request's arrival to the beginning of its answer.",
        );
        let labels = ["http_request_method", "http_response_status_code", "http_route"];
        let durations = HistogramVec::new(duration.buckets(BUCKETS.to_vec()), &labels)
            .map_err(Failure::internal)?;
        let target = Opts::new("target_info", "The services of this process.");
        let targets = IntGaugeVec::new(target, &["service_name"]).map_err(Failure::internal)?;
        register(&registry, active.clone())?;
        register(&registry, durations.clone())?;
        register(&registry, targets.clone())?;
        #[cfg(target_os = "linux")]
        register(&registry, prometheus::process_collector::ProcessCollector::for_self())?;
        Ok(Self(Arc::new(Inner {
            registry,
            active,
            durations,
            series: RwLock::default(),
            targets,
            counters: Mutex::default(),
        })))
    }

    /// Adds a service, and the counters of its slices under its name.
    ///
    /// # Errors
    /// When a counter's name is none, or another metric has it: a defect of ours.
    pub fn add_service(
        &self,
        service: &str,
        counters: impl IntoIterator<Item = Counter>,
    ) -> Result<()> {
        let inner = &*self.0;
        inner.targets.with_label_values(&[service]).set(1);
        let mut counted = inner.counters.lock();
        for counter in counters {
            let known = counted.iter().find(|it| it.counter.name == counter.name);
            let family = match known {
                Some(it) => it.family.clone(),
                None => {
                    let opts = Opts::new(counter.name, counter.help);
                    let family = IntCounterVec::new(opts, &["service_name"]);
                    let family = family.map_err(Failure::internal)?;
                    register(&inner.registry, family.clone())?;
                    family
                }
            };
            counted.push(Counted { service: service.to_owned(), counter, family });
        }
        Ok(())
    }

    /// What this slice brings.
    pub fn part(&self) -> Part {
        Part { name: "metrics", routes: http::routes(self.clone()), ..Part::default() }
    }

    /// The metrics as they are now, in Prometheus's text format 0.0.4.
    ///
    /// # Errors
    /// When they cannot be written: a defect of ours.
    pub fn render(&self) -> Result<String> {
        for Counted { service, counter, family } in &*self.0.counters.lock() {
            let shown = family.with_label_values(&[service]);
            shown.inc_by(counter.get().saturating_sub(shown.get()));
        }
        let families = self.0.registry.gather();
        TextEncoder::new().encode_to_string(&families).map_err(Failure::internal)
    }

    /// A request has come.
    pub(crate) fn request_began(&self) {
        self.0.active.inc();
    }

    /// A request is over, answered or not.
    pub(crate) fn request_left(&self) {
        self.0.active.dec();
    }

    /// A request was answered.
    pub(crate) fn request_ended(&self, method: &Method, status: u16, route: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        let method = label(method);
        let matches = |it: &&Series| it.status == status && it.method == method;
        {
            let series = self.0.series.read();
            if let Some(it) = series.get(route).and_then(|it| it.iter().find(matches)) {
                it.durations.observe(seconds);
                return;
            }
        }
        let labels = [method, &status.to_string(), route];
        let durations = self.0.durations.with_label_values(&labels);
        durations.observe(seconds);
        let mut series = self.0.series.write();
        let of_route = series.entry(route.into()).or_default();
        if !of_route.iter().any(|it| matches(&it)) {
            of_route.push(Series { method, status, durations });
        }
    }
}

/// Clients may make methods up; there is no series for each.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

fn register(registry: &Registry, it: impl Collector + 'static) -> Result<()> {
    registry.register(Box::new(it)).map_err(Failure::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_route_method_and_status() {
        let metrics = Metrics::new().unwrap();
        for _ in 0..2 {
            metrics.request_ended(&Method::GET, 200, "/health", Duration::from_millis(2));
        }
        let other = Method::from_bytes(b"BREW").unwrap();
        metrics.request_ended(&other, 405, "unmatched", Duration::ZERO);
        let text = metrics.render().unwrap();
        let health = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/health"} 2"#;
        assert!(text.contains(health), "{text}");
        assert!(text.contains(r#"http_request_method="_OTHER""#), "{text}");
    }

    #[test]
    fn counters_of_slices_are_read_when_asked_for() {
        let metrics = Metrics::new().unwrap();
        let of = |service: &str| {
            let counter = Counter::new("ml_train_jobs_total", "Training jobs submitted.");
            metrics.add_service(service, [counter.clone()]).unwrap();
            counter
        };
        let (one, two) = (of("one"), of("two"));
        one.increment();
        metrics.render().unwrap();
        one.increment();
        two.increment();
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"ml_train_jobs_total{service_name="one"} 2"#), "{text}");
        assert!(text.contains(r#"ml_train_jobs_total{service_name="two"} 1"#), "{text}");
        assert!(text.contains(r#"target_info{service_name="two"} 1"#), "{text}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_measured() {
        let text = Metrics::new().unwrap().render().unwrap();
        for name in
            ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"]
        {
            assert!(text.contains(&format!("\n{name} ")), "{name} is missing in {text}");
        }
    }
}

//! The differences that we want, read from `deviations.toml`, where each has its reason.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use super::answer::Answer;
use super::compare::{Difference, Kind};
use super::recorded::Exchange;

/// All of them, and which have been seen.
#[derive(Debug)]
pub struct Deviations {
    all: Vec<Deviation>,
    /// Deviation and index in its `at`.
    seen_at: HashSet<(usize, usize)>,
    /// Deviation and place.
    seen_in: HashSet<(usize, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    /// Where: `s05#16`, `s05` or `*`.
    at: Vec<String>,
    /// Why, in a sentence.
    reason: String,
    /// The exchange is not replayed.
    #[serde(default)]
    skipped: bool,
    /// The status of our answer. Of an answer with another status nothing else is compared.
    status: Option<u16>,
    /// The code of our problem document. Of the body nothing else is compared then.
    problem: Option<String>,
    /// Places of what we have more. In all places `*` stands for one step of the way or the rest of
    /// a step, and `**` at the beginning or at the end for any number of steps.
    #[serde(default)]
    adds: Vec<String>,
    /// Places of what we do not have.
    #[serde(default)]
    lacks: Vec<String>,
    /// Places where we say something else.
    #[serde(default)]
    changes: Vec<String>,
    /// What we say at the places of `changes`; unless given, anything of the same type, or null.
    ours: Option<Value>,
}

impl Deviations {
    pub fn read() -> Self {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            deviation: Vec<Deviation>,
        }
        let File { deviation: all } = toml::from_str(include_str!("deviations.toml")).unwrap();
        for it in &all {
            assert!(it.reason.ends_with('.') && it.reason.len() > 20, "a reason, please: {it:?}");
        }
        Self { all, seen_at: HashSet::new(), seen_in: HashSet::new() }
    }

    /// Whether the exchange is left out.
    pub fn skips(&mut self, exchange: &Exchange) -> bool {
        let skipped = self.applying_to(exchange, |it| it.skipped);
        self.seen_at.extend(&skipped);
        !skipped.is_empty()
    }

    /// Our status, when it is to be another one.
    pub fn status(&self, exchange: &Exchange) -> Option<u16> {
        let found = self.applying_to(exchange, |it| it.status.is_some());
        found.first().and_then(|it| self.all[it.0].status)
    }

    /// Takes out what is wanted, and leaves what is not.
    pub fn filter(
        &mut self,
        exchange: &Exchange,
        ours: &Answer,
        mut found: Vec<Difference>,
    ) -> Vec<Difference> {
        let about_body = |it: &Difference| {
            it.place != "status" && !it.place.starts_with("header ")
                || it.place == "header content-type"
        };
        for (index, at) in self.applying_to(exchange, |it| it.status.is_some()) {
            if self.all[index].status == Some(ours.status) && ours.status != exchange.status {
                found.retain(|it| it.place.starts_with("header x-"));
                self.seen_at.insert((index, at));
            }
        }
        for (index, at) in self.applying_to(exchange, |it| it.problem.is_some()) {
            let count = found.len();
            if self.is_problem(index, ours) {
                found.retain(|it| !about_body(it));
                if found.len() < count || ours.status != exchange.status {
                    self.seen_at.insert((index, at));
                }
            } else {
                let code = self.all[index].problem.clone();
                found.push(Difference::change("problem", code, ours.json()));
            }
        }
        let (scenario, short) = (exchange.scenario(), exchange.short());
        self.filter_at(&["*", scenario, &short], found)
    }

    /// The same for what is no exchange with our server; `at` names where it is in every way.
    pub fn filter_at(&mut self, at: &[&str], mut found: Vec<Difference>) -> Vec<Difference> {
        found.retain(|it| {
            let wanted = self.applying(at, |deviation| deviation.wants(it));
            for wanted in &wanted {
                for pattern in self.all[wanted.0].patterns(it.kind) {
                    if matches(pattern, &it.place) {
                        self.seen_in.insert((wanted.0, pattern.clone()));
                    }
                }
            }
            self.seen_at.extend(&wanted);
            wanted.is_empty()
        });
        found
    }

    /// What was expected in these scenarios and did not show. What is for all of them has to show
    /// where `everything` is said to be asked.
    pub fn unused(&self, scenarios: &[&str], everything: bool) -> Vec<String> {
        let mut unused = Vec::new();
        for (index, deviation) in self.all.iter().enumerate() {
            let here = |at: &String| match at.as_str() {
                "*" => everything,
                at => scenarios.contains(&at.split('#').next().unwrap_or(at)),
            };
            for (at, pattern) in deviation.at.iter().enumerate() {
                if here(pattern) && !self.seen_at.contains(&(index, at)) {
                    unused.push(format!("{pattern}: {}", deviation.reason));
                }
            }
            if !deviation.at.iter().all(here) {
                continue;
            }
            let kinds = [Kind::Adds, Kind::Lacks, Kind::Changes];
            for place in kinds.into_iter().flat_map(|it| deviation.patterns(it)) {
                if !self.seen_in.contains(&(index, place.clone())) {
                    unused.push(format!("{place}: {}", deviation.reason));
                }
            }
        }
        unused
    }

    /// Deviations that are for one of these places, and for which of their own.
    fn applying(&self, at: &[&str], is: impl Fn(&Deviation) -> bool) -> Vec<(usize, usize)> {
        let all = self.all.iter().enumerate().filter(|it| is(it.1));
        let all = all.flat_map(|(index, it)| (0..it.at.len()).map(move |at| (index, at)));
        all.filter(|it| at.contains(&self.all[it.0].at[it.1].as_str())).collect()
    }

    fn applying_to(
        &self,
        exchange: &Exchange,
        is: impl Fn(&Deviation) -> bool,
    ) -> Vec<(usize, usize)> {
        self.applying(&["*", exchange.scenario(), &exchange.short()], is)
    }

    fn is_problem(&self, index: usize, ours: &Answer) -> bool {
        let body = ours.json();
        ours.header("content-type") == Some("application/problem+json")
            && body["status"] == ours.status
            && body["code"].as_str() == self.all[index].problem.as_deref()
            && ["type", "title", "detail", "instance"].iter().all(|it| body[it].is_string())
    }
}

impl Deviation {
    fn wants(&self, it: &Difference) -> bool {
        let said = match &self.ours {
            _ if it.kind != Kind::Changes => true,
            Some(ours) => *ours == it.ours,
            None => it.ours.is_null() || same_type(&it.recorded, &it.ours),
        };
        said && self.patterns(it.kind).iter().any(|pattern| matches(pattern, &it.place))
    }

    fn patterns(&self, kind: Kind) -> &[String] {
        match kind {
            Kind::Adds => &self.adds,
            Kind::Lacks => &self.lacks,
            Kind::Changes => &self.changes,
        }
    }
}

fn matches(pattern: &str, place: &str) -> bool {
    let step = |(a, b): (&str, &str)| a == "*" || a == b || ends_alike(a, b);
    if let Some(beginning) = pattern.strip_suffix("/**") {
        let beginning = beginning.split('/');
        return place.split('/').count() > beginning.clone().count()
            && beginning.zip(place.split('/')).all(step);
    }
    match pattern.strip_prefix("**/") {
        Some(end) => {
            let (end, place): (Vec<&str>, Vec<&str>) =
                (end.split('/').collect(), place.split('/').collect());
            place.len() > end.len()
                && end.iter().rev().copied().zip(place.iter().rev().copied()).all(step)
        }
        None => {
            let count = |text: &str| text.split('/').count();
            count(pattern) == count(place) && pattern.split('/').zip(place.split('/')).all(step)
        }
    }
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b) && a.is_f64() == b.is_f64()
}

/// `python_*` is every step that begins so.
fn ends_alike(pattern: &str, step: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|it| !it.is_empty() && step.starts_with(it))
}

#[test]
fn places_match_step_by_step() {
    assert!(matches("/items/*/name", "/items/3/name"));
    assert!(!matches("/items/*", "/items/3/name"));
    assert!(matches("/items/**", "/items/3/name") && !matches("/items/**", "/items"));
    assert!(matches("**/code", "/code") && matches("**/code", "/0/errors/code"));
    assert!(matches("/python_*", "/python_info") && !matches("/python_*", "/process_info"));
    assert!(matches("status", "status") && !matches("status", "/status"));
}

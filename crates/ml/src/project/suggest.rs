//! "Did you mean …": the valid name that a mistyped one most likely stands for.

/// Longer names are nobody's typing mistake, and comparing them would only cost time.
const LONGEST: usize = 64;

/// The name in `valid` that `name` most likely stands for; none when nothing is near.
///
/// Case, hyphens and underscores count for nothing, since those are what people mix up.
pub fn closest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    let name = plain(name);
    if name.chars().count() > LONGEST {
        return None;
    }
    let slip = valid
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= tolerated(&name, candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate);
    let words = format!("{name}_");
    let cut_short = || {
        let begins = |candidate: &&&str| name.len() > 1 && plain(candidate).starts_with(&words);
        valid.iter().find(begins).copied()
    };
    slip.or_else(cut_short)
}

/// ` (did you mean …?)` to put behind a message, or nothing.
pub fn hint(name: &str, valid: &[&str]) -> String {
    closest(name, valid).map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// One slip in every three letters.
fn tolerated(name: &str, candidate: &str) -> usize {
    let letters = name.chars().count().max(candidate.chars().count());
    letters.div_ceil(3)
}

#[cfg(test)]
mod tests {
    use super::closest;

    const KEYS: &[&str] = &["train", "predict", "validate", "wall_time", "min_prediction_periods"];

    #[test]
    fn finds_the_name_that_was_meant() {
        assert_eq!(closest("trian", KEYS), Some("train"));
        assert_eq!(closest("WALL-TIME", KEYS), Some("wall_time"));
        assert_eq!(closest("min_prediction_period", KEYS), Some("min_prediction_periods"));
        assert_eq!(closest("min", KEYS), Some("min_prediction_periods"));
    }

    #[test]
    fn stays_silent_when_nothing_is_near() {
        assert_eq!(closest("colour", KEYS), None);
        assert_eq!(closest("", KEYS), None);
        assert_eq!(closest(&"train".repeat(50), KEYS), None);
        assert_eq!(closest("train", &[]), None);
    }
}

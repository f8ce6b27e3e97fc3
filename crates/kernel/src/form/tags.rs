//! The rules for tags.

use std::collections::BTreeMap;

use super::{Node, quote};

const MAX_TAGS: usize = 50;
const MAX_TAG_CHARS: usize = 100;

/// How much of a tag a message shows, and how many complaints it joins: enough for any list that is
/// nearly right.
const SHOWN_CHARS: usize = 200;
const SHOWN_COMPLAINTS: usize = 2 * MAX_TAGS;

pub(super) fn read(node: &Node<'_>) -> Option<Vec<String>> {
    let items = node.items()?;
    let mut tags = Vec::with_capacity(items.len().min(MAX_TAGS));
    for (index, item) in items.iter().enumerate() {
        match item.as_str() {
            Some(tag) => tags.push(tag),
            None => _ = node.item(index, item).str(),
        }
    }
    if tags.len() < items.len() {
        return None;
    }
    let complaints = complaints(&tags);
    if complaints.is_empty() {
        return Some(tags.into_iter().map(str::to_owned).collect());
    }
    node.fail_rule(complaints.join("; "));
    None
}

fn complaints(tags: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for tag in tags {
        complain(tag, &mut complaints);
        if complaints.len() >= SHOWN_COMPLAINTS {
            break;
        }
    }
    let duplicates = duplicates(tags);
    if !duplicates.is_empty() {
        complaints.push(format!("Duplicate tags: [{}]", duplicates.join(", ")));
    }
    if tags.len() > MAX_TAGS {
        complaints.push(format!("Maximum {MAX_TAGS} tags allowed (got {})", tags.len()));
    }
    complaints
}

fn complain(tag: &str, complaints: &mut Vec<String>) {
    if tag.is_empty() {
        complaints.push("Empty tags not allowed".to_owned());
        return;
    }
    let shown = shown(tag);
    if tag.contains(char::is_whitespace) {
        complaints.push(format!("Tag '{shown}' contains whitespace"));
    }
    if !tag.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') {
        complaints.push(format!(
            "Tag '{shown}' contains invalid characters \
             (use letters, numbers, hyphens, underscores only)"
        ));
    }
    if tag.chars().count() > MAX_TAG_CHARS {
        complaints.push(format!("Tag '{shown}' exceeds {MAX_TAG_CHARS} character limit"));
    }
}

fn duplicates(tags: &[&str]) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for tag in tags {
        *counts.entry(*tag).or_insert(0_usize) += 1;
    }
    let repeated = counts.into_iter().filter(|(_, count)| *count > 1);
    repeated.take(MAX_TAGS).map(|(tag, _)| quote(&shown(tag))).collect()
}

fn shown(tag: &str) -> String {
    match tag.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &tag[..end]),
        None => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Report, Violations};
    use super::*;
    use serde_json::{Value, json};

    fn read_tags(tags: &Value) -> Result<Vec<String>, Violations> {
        let report = Report::new();
        let read = Node::at(&["body", "tags"], tags, &report).tags();
        report.finish().map(|()| read.unwrap())
    }

    fn complaint(tags: &Value) -> String {
        let violations = read_tags(tags).unwrap_err();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].kind, "value_error");
        assert_eq!(violations[0].ctx, Some(json!({"error": {}})));
        violations[0].msg.strip_prefix("Value error, ").unwrap().to_owned()
    }

    #[test]
    fn good_tags_are_taken_in_order() {
        assert_eq!(read_tags(&json!(["a-1", "b_2", "é9"])).unwrap(), ["a-1", "b_2", "é9"]);
        assert!(read_tags(&json!([])).unwrap().is_empty());
    }

    #[test]
    fn every_broken_rule_is_named() {
        assert_eq!(
            complaint(&json!(["has space"])),
            "Tag 'has space' contains whitespace; Tag 'has space' contains invalid characters \
             (use letters, numbers, hyphens, underscores only)"
        );
        assert_eq!(
            complaint(&json!(["d", "d", ""])),
            "Empty tags not allowed; Duplicate tags: ['d']"
        );
        let long = "x".repeat(101);
        assert_eq!(complaint(&json!([long])), format!("Tag '{long}' exceeds 100 character limit"));
        let many: Vec<String> = (0..51).map(|i| format!("t{i}")).collect();
        assert_eq!(complaint(&json!(many)), "Maximum 50 tags allowed (got 51)");
    }

    #[test]
    fn tags_are_a_list_of_strings() {
        assert_eq!(read_tags(&json!("str")).unwrap_err()[0].kind, "list_type");
        let violations = read_tags(&json!(["ok", 5, null])).unwrap_err();
        let kinds: Vec<_> = violations.iter().map(|violation| violation.kind).collect();
        assert_eq!(kinds, ["string_type", "string_type"]);
    }

    #[test]
    fn a_flood_of_bad_tags_gets_a_short_answer() {
        let flood: Vec<String> =
            (0..20_000).map(|i| format!("bad tag {i} {}", " ".repeat(50))).collect();
        assert!(complaint(&json!(flood)).len() < 50_000);
        let huge = " ".repeat(1_000_000);
        assert!(complaint(&json!([huge, huge])).len() < 5_000);
    }
}

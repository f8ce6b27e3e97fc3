//! Checking `GeoJSON` (RFC 7946) as clients of the contract know it: a feature collection whose
//! geometries are well-formed. It is passed on to models as it came.

use modelyard_kernel::form::Node;
use serde_json::{Value, json};

const GEOMETRIES: [&str; 7] = [
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
];

/// Geometry collections may hold collections; no map needs more than this.
const MAX_DEPTH: usize = 8;

/// Whether it is a feature collection; what is wrong is reported.
pub(super) fn read(node: &Node<'_>) -> bool {
    let Some(object) = node.object() else { return false };
    let kind =
        object.required("type").is_some_and(|it| it.one_of(&["FeatureCollection"]).is_some());
    let features = object.required("features").and_then(|it| it.list());
    let Some(features) = features else { return false };
    all(&features, feature) && kind
}

fn feature(node: &Node<'_>) -> bool {
    let Some(object) = node.object() else { return false };
    let kind = object.required("type").is_some_and(|it| it.one_of(&["Feature"]).is_some());
    let properties = match object.required("properties") {
        Some(it) if it.is_null() => true,
        Some(it) => it.object().is_some(),
        None => false,
    };
    let shape = match object.required("geometry") {
        Some(it) if it.is_null() => true,
        Some(it) => geometry(&it, 0),
        None => false,
    };
    kind && properties && shape
}

fn geometry(node: &Node<'_>, depth: usize) -> bool {
    let Some(object) = node.object() else { return false };
    let Some(tag) = object.get("type") else {
        node.fail(
            "union_tag_not_found",
            "Unable to extract tag using discriminator 'type'",
            Some(json!({"discriminator": "'type'"})),
        );
        return false;
    };
    let Some(kind) = GEOMETRIES.iter().find(|it| tag.value().as_str() == Some(it)) else {
        let expected = GEOMETRIES.map(|it| format!("'{it}'")).join(", ");
        node.fail(
            "union_tag_invalid",
            format!(
                "Input tag found using 'type' does not match any of the expected tags: {expected}"
            ),
            Some(json!({"discriminator": "'type'", "expected_tags": expected})),
        );
        return false;
    };
    let node = node.tagged(kind);
    let Some(object) = node.object() else { return false };
    if *kind == "GeometryCollection" {
        if depth == MAX_DEPTH {
            node.fail_rule(format!("collections are nested more than {MAX_DEPTH} times"));
            return false;
        }
        let parts = object.required("geometries").and_then(|it| it.list());
        return parts.is_some_and(|it| all(&it, |it| geometry(it, depth + 1)));
    }
    let Some(coordinates) = object.required("coordinates") else { return false };
    match *kind {
        "Point" => position(&coordinates),
        "MultiPoint" => each(&coordinates, 0, position),
        "LineString" => each(&coordinates, 2, position),
        "MultiLineString" => each(&coordinates, 0, |it| each(it, 2, position)),
        "Polygon" => each(&coordinates, 0, ring),
        _ => each(&coordinates, 0, |it| each(it, 0, ring)),
    }
}

fn each(node: &Node<'_>, at_least: usize, check: impl Fn(&Node<'_>) -> bool) -> bool {
    let Some(items) = node.list() else { return false };
    if items.len() < at_least {
        too_short(node, at_least, items.len());
        return false;
    }
    all(&items, check)
}

/// Checks every one, so that all violations are reported.
fn all(items: &[Node<'_>], check: impl Fn(&Node<'_>) -> bool) -> bool {
    let mut good = true;
    for item in items {
        good &= check(item);
    }
    good
}

fn ring(node: &Node<'_>) -> bool {
    let whole = each(node, 4, position);
    let Some(items) = node.value().as_array() else { return false };
    if whole && items.first() != items.last() {
        let msg = "Value error, All linear rings MUST have the same start and end coordinates";
        node.fail("value_error", msg, Some(json!({"error": {}})));
        return false;
    }
    whole
}

fn position(node: &Node<'_>) -> bool {
    let Some(items) = node.list() else { return false };
    if items.len() < 2 {
        too_short(node, 2, items.len());
        return false;
    }
    all(items.get(..3).unwrap_or(&items), |it| it.float().is_some())
}

fn too_short(node: &Node<'_>, at_least: usize, found: usize) {
    let context: Value =
        json!({"field_type": "List", "min_length": at_least, "actual_length": found});
    let msg = format!("List should have at least {at_least} items after validation, not {found}");
    node.fail("too_short", msg, Some(context));
}

#[cfg(test)]
mod tests {
    use modelyard_kernel::form::Report;

    use super::*;

    fn violations(geo: &Value) -> Vec<&'static str> {
        let report = Report::new();
        let good = read(&Node::body(geo, &report));
        let found = report.finish().err().unwrap_or_default();
        assert_eq!(good, found.is_empty());
        found.iter().map(|it| it.kind).collect()
    }

    fn collection(geometry: Value) -> Value {
        json!({"type": "FeatureCollection", "bbox": null, "features": [
            {"type": "Feature", "properties": {"id": "a"}, "geometry": geometry, "bbox": null}]})
    }

    #[test]
    fn collections_may_hold_collections_but_not_forever() {
        let nested = |times: usize| {
            (0..times).fold(
                json!({"type": "Point", "coordinates": [0, 0]}),
                |inner, _| json!({"type": "GeometryCollection", "geometries": [inner]}),
            )
        };
        assert!(violations(&collection(nested(MAX_DEPTH))).is_empty());
        assert_eq!(violations(&collection(nested(MAX_DEPTH + 1))), ["value_error"]);
    }

    #[test]
    fn well_formed_geometries_pass() {
        let ring = json!([[0, 0], [1, 0], [1, 1], [0, 0]]);
        for geometry in [
            Value::Null,
            json!({"type": "Point", "coordinates": [1, 2.5]}),
            json!({"type": "Polygon", "coordinates": [ring]}),
            json!({"type": "MultiPolygon", "coordinates": [[ring]]}),
            json!({"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}]}),
        ] {
            assert!(violations(&collection(geometry.clone())).is_empty(), "{geometry}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(violations(&json!({"type": "Nope"})), ["literal_error", "missing"]);
        let open = json!({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [5, 5]]]});
        assert_eq!(violations(&collection(open)), ["value_error"]);
        let short = json!({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]});
        assert_eq!(violations(&collection(short)), ["too_short"]);
        assert_eq!(violations(&collection(json!({"type": "Blob"}))), ["union_tag_invalid"]);
    }
}

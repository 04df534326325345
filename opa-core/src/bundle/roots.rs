//! Roots: the parts of the tree of documents that a bundle owns.

use std::collections::{BTreeMap, BTreeSet};

use opa_rego::Value;

use super::error::{BundleError, BundleErrorKind};

/// The roots of one bundle as a tree of segments, so that a check costs the length of the path
/// and not the number of roots.
#[derive(Debug, Clone)]
pub(super) struct RootTree {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    owned: bool,
    children: BTreeMap<Box<str>, usize>,
}

impl RootTree {
    /// Takes roots without leading and trailing "/".
    pub(super) fn new<'a>(roots: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tree = Self {
            nodes: vec![Node::default()],
        };
        for root in roots {
            let mut at = 0;
            for segment in segments(root) {
                at = tree.child(at, segment);
            }
            if let Some(node) = tree.nodes.get_mut(at) {
                node.owned = true;
            }
        }
        tree
    }

    fn child(&mut self, at: usize, segment: &str) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else {
            return 0;
        };
        if let Some(child) = node.children.get(segment) {
            return *child;
        }
        node.children.insert(Box::from(segment), next);
        self.nodes.push(Node::default());
        next
    }

    /// Whether the path lies in one of the roots, segment by segment.
    pub(super) fn contains<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> bool {
        let mut node = self.nodes.first();
        for segment in path {
            match node {
                Some(node) if node.owned => return true,
                Some(inner) => node = self.below(inner, segment),
                None => return false,
            }
        }
        node.is_some_and(|node| node.owned)
    }

    /// The first path of the data that lies outside of all roots, without a leading "/".
    /// Objects on the way to a root are no data of their own.
    pub(super) fn outside(&self, data: &Value) -> Option<String> {
        let mut pending = vec![(self.nodes.first()?, String::new(), data)];
        while let Some((node, path, value)) = pending.pop() {
            if node.owned {
                continue;
            }
            let Some(object) = value.as_object() else {
                return Some(path);
            };
            for (key, value) in object.iter().collect::<Vec<_>>().into_iter().rev() {
                let segment = key.as_str().unwrap_or_default();
                let path = match path.as_str() {
                    "" => segment.to_owned(),
                    parent => format!("{parent}/{segment}"),
                };
                match self.below(node, segment) {
                    Some(child) => pending.push((child, path, value)),
                    None => return Some(path),
                }
            }
        }
        None
    }

    fn below(&self, node: &Node, segment: &str) -> Option<&Node> {
        self.nodes.get(*node.children.get(segment)?)
    }
}

/// The segments of a root. The empty root has none and owns everything.
pub(super) fn segments(root: &str) -> impl Iterator<Item = &str> {
    let everything = root.is_empty();
    root.split('/').filter(move |_| !everything)
}

/// The roots as OPA prints them in messages: `[a/b c]`.
pub(super) fn shown<S: AsRef<str>>(roots: &[S]) -> String {
    let roots: Vec<&str> = roots.iter().map(AsRef::as_ref).collect();
    format!("[{}]", roots.join(" "))
}

/// Two roots of one manifest that overlap, as positions in ascending order.
pub(super) fn overlap<S: AsRef<str>>(roots: &[S]) -> Option<(usize, usize)> {
    let mut sorted: Vec<(String, usize)> = roots
        .iter()
        .enumerate()
        .map(|(position, root)| (canonical(root.as_ref()), position))
        .collect();
    sorted.sort();
    // A root that begins another also begins all that sort between the two.
    sorted.windows(2).find_map(|pair| match pair {
        [(outer, a), (inner, b)] if inner.starts_with(outer.as_str()) => {
            Some((*a.min(b), *a.max(b)))
        }
        _ => None,
    })
}

/// Checks that no two bundles of one app claim the same part of the tree, as OPA does before it
/// activates any of them.
pub(super) fn check_disjoint<'a>(
    bundles: impl IntoIterator<Item = (&'a str, &'a [String])>,
) -> Result<(), BundleError> {
    let mut claims: Vec<(String, &str)> = Vec::new();
    let mut with_empty_root = BTreeSet::new();
    for (name, roots) in bundles {
        for root in roots {
            if root.is_empty() {
                with_empty_root.insert(name);
            }
            claims.push((canonical(root), name));
        }
    }
    claims.sort_unstable();

    let mut colliding = BTreeSet::new();
    let mut conflicts = BTreeSet::new();
    let mut rest = claims.as_slice();
    while let Some((root, _)) = rest.first() {
        let (group, after) = rest.split_at(rest.partition_point(|(other, _)| other <= root));
        same_root(root, group, &mut colliding, &mut conflicts);
        below_root(root, group, after, &mut colliding, &mut conflicts);
        rest = after;
    }
    if colliding.is_empty() {
        return Ok(());
    }
    let colliding = joined(&colliding);
    let message = if with_empty_root.is_empty() {
        format!(
            "detected overlapping roots in manifests for these bundles: [{colliding}] ({})",
            joined(&conflicts)
        )
    } else {
        format!(
            "bundles [{colliding}] have overlapping roots and cannot be activated simultaneously \
             because bundle(s) [{}] specify empty root paths ('') which overlap with any other \
             bundle root",
            joined(&with_empty_root)
        )
    };
    Err(BundleError::new(BundleErrorKind::Roots, message))
}

/// Notes bundles that claim exactly the same root.
fn same_root<'a>(
    root: &str,
    group: &[(String, &'a str)],
    colliding: &mut BTreeSet<&'a str>,
    conflicts: &mut BTreeSet<String>,
) {
    let names: BTreeSet<&str> = group.iter().map(|(_, name)| *name).collect();
    if names.len() > 1 {
        colliding.extend(names);
        conflicts.insert(format!(
            "root {} is in multiple bundles",
            root.trim_matches('/')
        ));
    }
}

/// Notes bundles that claim a root below the group's.
fn below_root<'a>(
    root: &str,
    group: &[(String, &'a str)],
    after: &[(String, &'a str)],
    colliding: &mut BTreeSet<&'a str>,
    conflicts: &mut BTreeSet<String>,
) {
    for (inner, name) in after
        .iter()
        .take_while(|(inner, _)| inner.starts_with(root))
    {
        let others: Vec<&str> = group
            .iter()
            .map(|(_, other)| *other)
            .filter(|other| other != name)
            .collect();
        if others.is_empty() {
            continue;
        }
        colliding.extend(others);
        colliding.insert(name);
        let mut paths = [root.trim_matches('/'), inner.trim_matches('/')];
        paths.sort_unstable();
        conflicts.insert(paths.join(" overlaps "));
    }
}

/// Written so that "contains" is "begins with": `/a/b/` begins `/a/b/c/` but not `/a/bc/`.
fn canonical(root: &str) -> String {
    match root.trim_matches('/') {
        "" => "/".to_owned(),
        root => format!("/{root}/"),
    }
}

fn joined<S: AsRef<str>>(items: &BTreeSet<S>) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(roots: &[&str], path: &str) -> bool {
        RootTree::new(roots.iter().copied()).contains(segments(path))
    }

    #[test]
    fn containment_is_by_segment() {
        assert!(contains(&["a/b/c"], "a/b/c"));
        assert!(contains(&["a/b/c"], "a/b/c/d"));
        assert!(!contains(&["a/b/c"], "a/b/cat"));
        assert!(!contains(&["a/b/c"], "a/b"));
        assert!(contains(&[""], "anything/at/all"));
        assert!(contains(&[""], ""));
        assert!(!contains(&["a"], ""));
        assert!(!contains(&[], "a"));
        assert!(contains(&["x", "a/b"], "a/b"));
        // A segment with a slash in it is one segment.
        assert!(!RootTree::new(["a/b"]).contains(["a/b"]));
    }

    #[test]
    fn data_outside() {
        let outside = |roots: &[&str], data: &str| {
            let data = Value::from_json(data.as_bytes()).unwrap();
            RootTree::new(roots.iter().copied()).outside(&data)
        };
        assert_eq!(outside(&[""], r#"{"a":1}"#), None);
        assert_eq!(outside(&["a/b"], r#"{"a":{"b":1}}"#), None);
        assert_eq!(outside(&["a/b"], r#"{"a":{}}"#), None);
        assert_eq!(outside(&["a/b"], r#"{"a":{"b":1,"c":2}}"#).unwrap(), "a/c");
        assert_eq!(outside(&["a/b"], r#"{"a":1}"#).unwrap(), "a");
        assert_eq!(outside(&["a/b"], r#"{"x":{}}"#).unwrap(), "x");
        assert_eq!(outside(&[], r#"{"x":{}}"#).unwrap(), "x");
        assert_eq!(outside(&[], "{}"), None);
    }

    #[test]
    fn overlap_in_one_manifest() {
        assert_eq!(overlap(&["a", "b", "a/c"]), Some((0, 2)));
        assert_eq!(overlap(&["a/c", "b", "a"]), Some((0, 2)));
        assert_eq!(overlap(&["a", "b", "a"]), Some((0, 2)));
        assert_eq!(overlap(&["a", ""]), Some((0, 1)));
        assert_eq!(overlap(&["a/b", "a/bc", "a-b", "a/a"]), None);
        assert_eq!(overlap::<&str>(&[]), None);
    }

    fn disjoint(bundles: &[(&str, &[&str])]) -> Result<(), String> {
        let owned: Vec<(&str, Vec<String>)> = bundles
            .iter()
            .map(|(name, roots)| (*name, roots.iter().map(|root| (*root).to_owned()).collect()))
            .collect();
        check_disjoint(owned.iter().map(|(name, roots)| (*name, roots.as_slice())))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bundles_of_one_app() {
        assert_eq!(disjoint(&[("x", &["a/b/c"]), ("y", &["a/b/cat"])]), Ok(()));
        assert_eq!(disjoint(&[("x", &["a", "b"]), ("y", &["c"])]), Ok(()));
        assert_eq!(disjoint(&[("x", &[""])]), Ok(()));
        assert_eq!(
            disjoint(&[("y", &["a"]), ("x", &["a/b"]), ("z", &["c"])]).unwrap_err(),
            "detected overlapping roots in manifests for these bundles: [x, y] (a overlaps a/b)"
        );
        assert_eq!(
            disjoint(&[("x", &["a"]), ("y", &["a"])]).unwrap_err(),
            "detected overlapping roots in manifests for these bundles: [x, y] \
             (root a is in multiple bundles)"
        );
        assert_eq!(
            disjoint(&[("x", &[""]), ("y", &["a"])]).unwrap_err(),
            "bundles [x, y] have overlapping roots and cannot be activated simultaneously because \
             bundle(s) [x] specify empty root paths ('') which overlap with any other bundle root"
        );
    }
}

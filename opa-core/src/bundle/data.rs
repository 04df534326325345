//! The tree of data: data files hang at their directory, and those that meet are merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use opa_rego::Value;

use super::error::{BundleError, BundleErrorKind};

/// Data under construction.
///
/// Branches live in one list and refer to each other by position, so that neither merging nor
/// dropping recurses over the depth of the data. A value is opened up only where another one
/// meets it.
#[derive(Debug)]
pub(super) struct Tree {
    /// All there is, as long as nothing else has met it.
    whole: Option<(Value, Arc<str>)>,
    /// The root comes first, and a branch after the one that it hangs from.
    branches: Vec<Branch>,
}

#[derive(Debug)]
struct Branch {
    /// The file that made it.
    file: Arc<str>,
    parent: Option<(usize, Value)>,
    children: BTreeMap<Value, Slot>,
}

#[derive(Debug, Clone)]
enum Slot {
    Leaf { value: Value, file: Arc<str> },
    Branch(usize),
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            whole: None,
            branches: vec![Branch {
                file: Arc::from("/"),
                parent: None,
                children: BTreeMap::new(),
            }],
        }
    }

    /// Hangs a value at a path, merged with what is there: objects deeply, all else collides.
    pub(super) fn insert(
        &mut self,
        path: &[&str],
        value: Value,
        file: &Arc<str>,
    ) -> Result<(), BundleError> {
        self.open_whole();
        let Some((last, directories)) = path.split_last() else {
            if self.is_empty() && value.as_object().is_some() {
                self.whole = Some((value, Arc::clone(file)));
                return Ok(());
            }
            return self.merge(0, value, file);
        };
        let mut at = 0;
        for segment in directories {
            at = self.directory(at, &Value::from(*segment), file)?;
        }
        self.place(at, &Value::from(*last), value, file)
            .and_then(|meets| match meets {
                Some((branch, value)) => self.merge(branch, value, file),
                None => Ok(()),
            })
    }

    /// The finished tree, an object.
    pub(super) fn finish(self) -> Value {
        if let Some((value, _)) = self.whole {
            return value;
        }
        let mut finished: Vec<Option<Value>> = vec![None; self.branches.len()];
        for (position, branch) in self.branches.into_iter().enumerate().rev() {
            let children = branch.children.into_iter().map(|(key, slot)| {
                let value = match slot {
                    Slot::Leaf { value, .. } => value,
                    Slot::Branch(child) => finished
                        .get_mut(child)
                        .and_then(Option::take)
                        .unwrap_or_default(),
                };
                (key, value)
            });
            let object = Value::object(children.collect::<Vec<_>>());
            if let Some(slot) = finished.get_mut(position) {
                *slot = Some(object);
            }
        }
        finished
            .into_iter()
            .next()
            .flatten()
            .unwrap_or_else(Value::empty_object)
    }

    fn is_empty(&self) -> bool {
        self.branches
            .iter()
            .all(|branch| branch.children.is_empty())
    }

    /// Opens up what was all, since something meets it.
    fn open_whole(&mut self) {
        let members = self
            .whole
            .take()
            .and_then(|(value, file)| opened(&value, &file));
        if let (Some(members), Some(root)) = (members, self.branches.first_mut()) {
            root.children = members;
        }
    }

    /// Merges an object into a branch.
    fn merge(&mut self, at: usize, value: Value, file: &Arc<str>) -> Result<(), BundleError> {
        let mut pending = vec![(at, value)];
        while let Some((at, value)) = pending.pop() {
            let Some(object) = value.as_object() else {
                return Err(self.not_an_object(at, file));
            };
            for (key, value) in object.iter() {
                pending.extend(self.place(at, key, value.clone(), file)?);
            }
        }
        Ok(())
    }

    /// Puts a value under a key. If both the old and the new one are objects, answers the branch
    /// of the old one and the value that is still to be merged into it.
    fn place(
        &mut self,
        at: usize,
        key: &Value,
        value: Value,
        file: &Arc<str>,
    ) -> Result<Option<(usize, Value)>, BundleError> {
        let Some(branch) = self.branches.get_mut(at) else {
            return Ok(None);
        };
        if !branch.children.contains_key(key) {
            let file = Arc::clone(file);
            branch
                .children
                .insert(key.clone(), Slot::Leaf { value, file });
            return Ok(None);
        }
        let meets = self.directory(at, key, file)?;
        if value.as_object().is_none() {
            return Err(self.not_an_object(meets, file));
        }
        Ok(Some((meets, value)))
    }

    /// The branch under a key: made if there is nothing, opened up if there is an object.
    fn directory(&mut self, at: usize, key: &Value, file: &Arc<str>) -> Result<usize, BundleError> {
        let next = self.branches.len();
        let slot = self
            .branches
            .get(at)
            .and_then(|branch| branch.children.get(key))
            .cloned();
        let (children, file) = match slot {
            Some(Slot::Branch(child)) => return Ok(child),
            None => (BTreeMap::new(), Arc::clone(file)),
            Some(Slot::Leaf { value, file: old }) => match opened(&value, &old) {
                Some(children) => (children, old),
                None => return Err(self.collision(at, Some(key), &old, file)),
            },
        };
        self.branches.push(Branch {
            file,
            parent: Some((at, key.clone())),
            children,
        });
        if let Some(branch) = self.branches.get_mut(at) {
            branch.children.insert(key.clone(), Slot::Branch(next));
        }
        Ok(next)
    }

    /// The fault of a value that is no object but has to be merged into a branch.
    fn not_an_object(&self, at: usize, file: &Arc<str>) -> BundleError {
        if at == 0 {
            return BundleError::new(
                BundleErrorKind::Data,
                format!("bundle load failed on {file}: root value must be object"),
            );
        }
        let old = self.branches.get(at).map(|branch| Arc::clone(&branch.file));
        self.collision(at, None, &old.unwrap_or_default(), file)
    }

    fn collision(
        &self,
        at: usize,
        key: Option<&Value>,
        old: &Arc<str>,
        new: &Arc<str>,
    ) -> BundleError {
        let mut path: Vec<&str> = key.into_iter().filter_map(Value::as_str).collect();
        let mut branch = self.branches.get(at);
        while let Some((parent, key)) = branch.and_then(|branch| branch.parent.as_ref()) {
            path.push(key.as_str().unwrap_or_default());
            branch = self.branches.get(*parent);
        }
        path.reverse();
        let path = path.join("/");
        BundleError::new(
            BundleErrorKind::Data,
            format!(
                "bundle load failed on {new}: failed to insert data file from path {path}: \
                 `{old}` already defines it, and only objects merge"
            ),
        )
    }
}

/// The members of an object as leaves of the file that it came from.
fn opened(value: &Value, file: &Arc<str>) -> Option<BTreeMap<Value, Slot>> {
    let object = value.as_object()?;
    let children = object.iter().map(|(key, value)| {
        let leaf = Slot::Leaf {
            value: value.clone(),
            file: Arc::clone(file),
        };
        (key.clone(), leaf)
    });
    Some(children.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str, &str)]) -> Result<String, String> {
        let mut tree = Tree::new();
        for (file, path, json) in files {
            let path: Vec<&str> = path
                .split('/')
                .filter(|segment| !segment.is_empty())
                .collect();
            let value = Value::from_json(json.as_bytes()).unwrap();
            tree.insert(&path, value, &Arc::from(*file))
                .map_err(|error| error.to_string())?;
        }
        Ok(tree.finish().to_json())
    }

    #[test]
    fn files_hang_at_their_directory() {
        assert_eq!(tree(&[]).unwrap(), "{}");
        assert_eq!(
            tree(&[("/data.json", "", r#"{"a":1}"#)]).unwrap(),
            r#"{"a":1}"#
        );
        assert_eq!(
            tree(&[
                ("/x/y/data.json", "x/y", "[1]"),
                ("/x/data.json", "x", r#"{"z":2}"#)
            ])
            .unwrap(),
            r#"{"x":{"y":[1],"z":2}}"#
        );
        // The order does not matter.
        assert_eq!(
            tree(&[
                ("/x/data.json", "x", r#"{"z":2}"#),
                ("/x/y/data.json", "x/y", "[1]")
            ])
            .unwrap(),
            r#"{"x":{"y":[1],"z":2}}"#
        );
    }

    #[test]
    fn what_meets_nothing_is_not_copied() {
        let file = Arc::from("/data.json");
        let value = Value::from_json(br#"{"a":{"b":1}}"#).unwrap();
        let mut tree = Tree::new();
        tree.insert(&[], value.clone(), &file).unwrap();
        assert!(Value::ptr_eq(&tree.finish(), &value));

        let mut tree = Tree::new();
        tree.insert(&["x", "y"], value.clone(), &file).unwrap();
        tree.insert(&[], value.clone(), &file).unwrap();
        let merged = tree.finish();
        assert!(Value::ptr_eq(merged.at(&["x", "y"]).unwrap(), &value));
        assert!(Value::ptr_eq(
            merged.get("a").unwrap(),
            value.get("a").unwrap()
        ));
    }

    #[test]
    fn objects_merge_deeply() {
        assert_eq!(
            tree(&[
                ("/data.json", "", r#"{"a":{"b":{"c":1}},"e":{}}"#),
                ("/data.yaml", "", r#"{"a":{"b":{"d":2},"f":[]},"e":{}}"#),
                ("/a/b/data.json", "a/b", r#"{"g":3}"#),
            ])
            .unwrap(),
            r#"{"a":{"b":{"c":1,"d":2,"g":3},"f":[]},"e":{}}"#
        );
    }

    #[test]
    fn collisions_name_both_files() {
        let same = tree(&[
            ("/data.json", "", r#"{"a":{"b":1}}"#),
            ("/a/b/data.json", "a/b", "1"),
        ]);
        assert_eq!(
            same.unwrap_err(),
            "bundle load failed on /a/b/data.json: failed to insert data file from path a/b: \
             `/data.json` already defines it, and only objects merge"
        );
        let under = tree(&[("/a/data.json", "a", "1"), ("/a/b/data.json", "a/b", "{}")]);
        assert!(under.unwrap_err().contains("path a: `/a/data.json`"));
        let over = tree(&[("/a/b/data.json", "a/b", "{}"), ("/a/data.json", "a", "[]")]);
        assert!(over.unwrap_err().contains("path a: `/a/b/data.json`"));
        let deep = tree(&[
            ("/data.json", "", r#"{"a":{"b":{"c":1}}}"#),
            ("/a/data.json", "a", r#"{"b":{"c":{"d":1}}}"#),
        ]);
        assert!(deep.unwrap_err().contains("path a/b/c: `/data.json`"));
        let list = tree(&[
            ("/data.json", "", r#"{"a":[1]}"#),
            ("/data.yml", "", r#"{"a":[2]}"#),
        ]);
        assert!(list.unwrap_err().contains("path a: `/data.json`"));
    }

    #[test]
    fn the_root_must_be_an_object() {
        assert_eq!(
            tree(&[("/data.json", "", "[1]")]).unwrap_err(),
            "bundle load failed on /data.json: root value must be object"
        );
    }

    #[test]
    fn deep_trees_neither_recurse_nor_leak_onto_the_stack() {
        let deep = |leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(9_000), "}".repeat(9_000));
        let merged = std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                tree(&[
                    ("/data.json", "", &deep(r#"{"x":1}"#)),
                    ("/data.yaml", "", &deep(r#"{"y":1}"#)),
                ])
            })
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
        assert!(merged.contains(r#"{"x":1,"y":1}"#));
    }
}

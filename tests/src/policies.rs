//! The policies of the differential tests, and the requests that are sent to each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::peers::Opa;

/// A policy: its files, its decision, and requests with the status that Envoy answers.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    path: String,
    /// Where the files come from, by their path in the bundle.
    files: BTreeMap<PathBuf, PathBuf>,
    context: Pairs,
    cases: Vec<Case>,
}

/// One request for a policy, and the status with which Envoy answers it.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    method: String,
    target: String,
    headers: Pairs,
    status: u16,
}

type Pairs = Vec<(String, String)>;

/// The revision of all bundles that are built here.
pub const REVISION: &str = "fixed";

/// The fixed policies, by name: each folder of `fixtures/policies` has Rego modules, perhaps data,
/// and `requests.json`. The decision is `<folder>/allow`.
///
/// # Panics
///
/// When a folder can't be read or its `requests.json` isn't as it should be.
pub fn fixed() -> Vec<Policy> {
    entries(&root().join("tests/fixtures/policies"))
        .into_iter()
        .map(|folder| read(&name_of(&folder), &folder.join("requests.json"), &folder))
        .collect()
}

/// The policies of the quickstart, by app: each file of `fixtures/quickstart` names those of the
/// example.
///
/// # Panics
///
/// When a file can't be read or isn't as it should be.
pub fn quickstart() -> Vec<Policy> {
    let example = root().join("examples/quickstart");
    entries(&root().join("tests/fixtures/quickstart"))
        .into_iter()
        .map(|file| read(&name_of(&file), &file, &example))
        .collect()
}

/// All of them.
///
/// # Panics
///
/// As [`fixed`] and [`quickstart`].
pub fn all() -> Vec<Policy> {
    [fixed(), quickstart()].concat()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn name_of(path: &Path) -> String {
    path.file_stem()
        .expect("a fixture has a name")
        .to_string_lossy()
        .into_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut entries: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    entries
}

fn read(name: &str, requests: &Path, sources: &Path) -> Policy {
    let text = fs::read_to_string(requests).unwrap_or_else(|error| panic!("{requests:?}: {error}"));
    serde_json::from_str(&text)
        .map_err(|error| error.to_string())
        .and_then(|document| parse(name, &document, sources))
        .unwrap_or_else(|error| panic!("{requests:?}: {error}"))
}

fn parse(name: &str, document: &Value, sources: &Path) -> Result<Policy, String> {
    let path = document.get("path").and_then(Value::as_str);
    let cases = document
        .get("requests")
        .and_then(Value::as_array)
        .ok_or("no `requests`")?;
    Ok(Policy {
        name: name.to_owned(),
        path: path.map_or_else(|| format!("{name}/allow"), str::to_owned),
        files: match document.get("files") {
            Some(files) => named(files, sources)?,
            None => bundled(sources, Path::new("")),
        },
        context: document.get("context").map_or(Ok(Vec::new()), pairs)?,
        cases: cases.iter().map(case).collect::<Result<_, _>>()?,
    })
}

fn named(files: &Value, sources: &Path) -> Result<BTreeMap<PathBuf, PathBuf>, String> {
    let file = |(path, source): (&String, &Value)| {
        Some((PathBuf::from(path), sources.join(source.as_str()?)))
    };
    let files = files
        .as_object()
        .and_then(|files| files.iter().map(file).collect());
    files.ok_or_else(|| "`files` maps no paths to paths".to_owned())
}

/// The files below a folder that belong into a bundle.
fn bundled(folder: &Path, below: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let mut files = BTreeMap::new();
    for source in entries(folder) {
        let path = below.join(source.file_name().expect("an entry has a name"));
        if source.is_dir() {
            files.extend(bundled(&source, &path));
        } else if !path.ends_with("requests.json") {
            files.insert(path, source);
        }
    }
    files
}

fn case(document: &Value) -> Result<Case, String> {
    let text = |key: &str| {
        let value = document.get(key).and_then(Value::as_str);
        value
            .map(str::to_owned)
            .ok_or_else(|| format!("`{key}` is no text in {document}"))
    };
    let status = document
        .get("status")
        .and_then(Value::as_u64)
        .and_then(|n| n.try_into().ok());
    Ok(Case {
        name: text("name")?,
        method: text("method")?,
        target: text("path")?,
        headers: document.get("headers").map_or(Ok(Vec::new()), pairs)?,
        status: status.ok_or_else(|| format!("`status` is no status in {document}"))?,
    })
}

/// An array of pairs: a name may stand in it twice, and the order stays.
fn pairs(document: &Value) -> Result<Pairs, String> {
    let pair = |pair: &Value| {
        let text = |index: usize| pair.get(index)?.as_str().map(str::to_owned);
        Some((text(0)?, text(1)?))
    };
    let pairs = document
        .as_array()
        .and_then(|pairs| pairs.iter().map(pair).collect());
    pairs.ok_or_else(|| format!("not an array of pairs: {document}"))
}

impl Policy {
    /// The name of its app, and of its bundle.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of its decision, as `orders/allow`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its decision as a query.
    pub fn query(&self) -> String {
        format!("data.{}", self.path.replace('/', "."))
    }

    /// The context extensions of its route.
    pub fn context(&self) -> &[(String, String)] {
        &self.context
    }

    /// What is sent to it.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Copies its files into a new folder `<name>` of `folder`, as they lie in a bundle.
    ///
    /// # Panics
    ///
    /// When they can't be copied.
    pub fn lay_out(&self, folder: &Path) -> PathBuf {
        let folder = folder.join(&self.name);
        for (path, source) in &self.files {
            let path = folder.join(path);
            let parent = path.parent().expect("a file is in a folder");
            let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(source, &path));
            copied.unwrap_or_else(|error| panic!("{source:?} to {path:?}: {error}"));
        }
        folder
    }

    /// Builds `<name>.tar.gz` in `folder`, with the real `opa build`.
    pub fn build(&self, opa: &Opa, folder: &Path) -> PathBuf {
        let bundle = folder.join(format!("{}.tar.gz", self.name));
        let sources = tempfile::tempdir().expect("a directory can be made");
        opa.build(&self.lay_out(sources.path()), &bundle, REVISION);
        bundle
    }
}

impl Case {
    /// What it shows, unique within its policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The status with which Envoy answers.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The request, to the host `service.example` unless the case names another.
    ///
    /// # Panics
    ///
    /// When the case has no valid method, path or header.
    pub fn request(&self) -> Request<Bytes> {
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(&self.target);
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", "service.example");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
            .body(Bytes::new())
            .unwrap_or_else(|error| panic!("`{}`: {error}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_thirty_and_the_quickstarts_with_three_to_six_requests_each() {
        assert_eq!(fixed().len(), 30);
        assert_eq!(quickstart().len(), 5);
        let policies = all();
        let names: BTreeSet<_> = policies.iter().map(Policy::name).collect();
        assert_eq!(names.len(), policies.len(), "a name stands twice");
        for policy in &policies {
            let name = policy.name();
            assert!((3..=6).contains(&policy.cases().len()), "{name}");
            let names: BTreeSet<_> = policy.cases().iter().map(Case::name).collect();
            assert_eq!(
                names.len(),
                policy.cases().len(),
                "{name}: a name stands twice"
            );
            // A policy that answers everything alike would hide a product that does so too.
            let answers: BTreeSet<_> = policy.cases().iter().map(Case::status).collect();
            assert!(answers.len() > 1, "{name}: all requests are answered alike");
            policy.cases().iter().for_each(|case| drop(case.request()));
        }
    }

    /// A file of the example that no fixture names would be compared by nobody.
    #[test]
    fn all_of_the_quickstart_is_there() {
        let example = bundled(&root().join("examples/quickstart"), Path::new(""));
        let sources: BTreeSet<_> = example
            .into_values()
            .filter(|source| !source.ends_with("opa.yaml"))
            .collect();
        let named: BTreeSet<_> = quickstart()
            .into_iter()
            .flat_map(|policy| policy.files.into_values())
            .collect();
        assert_eq!(named, sources);
    }

    #[test]
    fn files_are_laid_out_as_in_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        for policy in all() {
            let laid_out = policy.lay_out(folder.path());
            assert_eq!(laid_out, folder.path().join(policy.name()));
            let paths = bundled(&laid_out, Path::new(""));
            assert!(paths.keys().eq(policy.files.keys()), "{}", policy.name());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = case(&serde_json::json!({"name": "a", "method": "GET"})).unwrap_err();
        assert!(error.contains("`path`"), "{error}");
        assert!(pairs(&serde_json::json!([["a"]])).is_err());
        let error = parse("a", &serde_json::json!({}), Path::new("/")).unwrap_err();
        assert!(error.contains("`requests`"), "{error}");
    }
}

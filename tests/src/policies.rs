//! The fixed policies of the differential tests, and the requests that are sent to each.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use serde_json::Value;

/// A folder below `fixtures/policies`: Rego modules, perhaps data, and `requests.json`.
///
/// Its decision is `<name>/allow`.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    folder: PathBuf,
    context: Vec<(String, String)>,
    cases: Vec<Case>,
}

/// One request for a policy, and the status with which Envoy answers it.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    status: u16,
}

/// All policies, by name.
///
/// # Panics
///
/// When a folder can't be read or its `requests.json` isn't as it should be.
pub fn all() -> Vec<Policy> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policies");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut folders: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    folders.into_iter().map(read).collect()
}

fn read(folder: PathBuf) -> Policy {
    let file = folder.join("requests.json");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let requests = serde_json::from_str::<Value>(&text)
        .map_err(|error| error.to_string())
        .and_then(|document| parse(&document));
    let (context, cases) = requests.unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let name = folder
        .file_name()
        .expect("a folder has a name")
        .to_string_lossy()
        .into_owned();
    Policy {
        name,
        folder,
        context,
        cases,
    }
}

type Pairs = Vec<(String, String)>;

fn parse(document: &Value) -> Result<(Pairs, Vec<Case>), String> {
    let context = match document.get("context") {
        Some(context) => pairs(context)?,
        None => Vec::new(),
    };
    let cases = document
        .get("requests")
        .and_then(Value::as_array)
        .ok_or("no `requests`")?;
    Ok((context, cases.iter().map(case).collect::<Result<_, _>>()?))
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
    /// The name of the folder and of the package.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its modules are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of its decision.
    pub fn path(&self) -> String {
        format!("{}/allow", self.name)
    }

    /// The context extensions of its route.
    pub fn context(&self) -> &[(String, String)] {
        &self.context
    }

    /// What is sent to it.
    pub fn cases(&self) -> &[Case] {
        &self.cases
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
    fn there_are_thirty_with_three_to_six_requests_each() {
        let policies = all();
        assert_eq!(policies.len(), 30);
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

    #[test]
    fn what_is_missing_is_named() {
        let error = case(&serde_json::json!({"name": "a", "method": "GET"})).unwrap_err();
        assert!(error.contains("`path`"), "{error}");
        assert!(pairs(&serde_json::json!([["a"]])).is_err());
    }
}

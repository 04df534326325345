//! The bundles of the quickstart: files of this repository, packed by the product's own writer.

use std::collections::BTreeMap;

use opa_core::bundle::{BundleError, BundleWriter};

/// A packed bundle.
pub(crate) type Archive = Vec<u8>;

/// The bundles of an app by revision.
pub(crate) type Revisions = BTreeMap<&'static str, Archive>;

const ORDERS: &str = include_str!("../../../quickstart/orders/policy.rego");
const ORDERS_DATA: &str = include_str!("../../../quickstart/orders/data.json");
const REPORTS: &str = include_str!("../../../quickstart/reports/policy.rego");
const REPORTS_2: &str = include_str!("../../../quickstart/reports/policy_2.rego");
const TENANT: &str = include_str!("../../../quickstart/tenants/policy.rego");
const BLUE: &str = include_str!("../../../quickstart/tenants/blue.json");
const GREEN: &str = include_str!("../../../quickstart/tenants/green.json");

/// All that the bundle server can publish, by app.
pub(crate) fn all() -> Result<BTreeMap<&'static str, Revisions>, BundleError> {
    let orders = BundleWriter::new()
        .revision("orders-1")
        .roots(["orders"])?
        .module("orders/policy.rego", ORDERS)?
        .file("orders/data.json", ORDERS_DATA)?;
    let reports = |revision, policy| {
        BundleWriter::new()
            .revision(revision)
            .roots(["reports"])?
            .module("reports/policy.rego", policy)?
            .to_vec()
    };
    let tenant = |revision, data| {
        BundleWriter::new()
            .revision(revision)
            .roots(["tenant"])?
            .module("tenant/policy.rego", TENANT)?
            .file("tenant/data.json", data)?
            .to_vec()
    };
    Ok(BTreeMap::from([
        ("orders", Revisions::from([("orders-1", orders.to_vec()?)])),
        (
            "reports",
            Revisions::from([
                ("reports-1", reports("reports-1", REPORTS)?),
                ("reports-2", reports("reports-2", REPORTS_2)?),
            ]),
        ),
        (
            "blue",
            Revisions::from([("blue-1", tenant("blue-1", BLUE)?)]),
        ),
        (
            "green",
            Revisions::from([("green-1", tenant("green-1", GREEN)?)]),
        ),
    ]))
}

#[cfg(test)]
mod tests {
    use opa_core::bundle::{Limits, read};

    use super::*;

    #[test]
    fn every_bundle_carries_the_revision_that_it_is_published_under() {
        let all = all().unwrap();
        assert_eq!(all.len(), 4);
        for (revision, archive) in all.values().flatten() {
            let bundle = read(archive.as_slice(), &Limits::default()).unwrap();
            assert_eq!(bundle.manifest().revision(), *revision);
        }
    }
}

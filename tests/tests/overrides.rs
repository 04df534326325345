//! The same `--set` and `--set-file` given to the real `opa run --server` and to us.

use opa_core::config::{EnvPolicy, Overrides, Template};
use serde_json::{Value, json};
use tests::peers::{self, Opa};

/// `x` is nothing that OPA reads, so that every value may stand there.
const BASE: &str = "
x:
  a: {b: 1, c: [10, 20], d: {e: f}}
  s: str
  n: null
labels: {app: orig, other: o}
";

const ENV: [(&str, &str); 4] = [("V", "val"), ("N", "5"), ("E", ""), ("L", "l1\nl2")];

/// What both make the same of, each flag of its own separated by a space.
const SAME: [&str; 50] = [
    "x.a.b=2",
    "x.a.b=True,x.s=false",
    "x.a.b=null",
    "x.a.b=~,x.s=",
    "x.a.b=1.5,x.s=01,x.n=0",
    "x.a.b=-5,x.s=1e3,x.n=0x10",
    "x.a.b=99999999999999999999,x.s=9223372036854775807",
    "x.a.b=yes,x.s=\"q\"",
    r"x.a.b=1\,2,x.s=c\=d,x.n=c=d",
    r"x.a\.b=1,x.a\=b=2,x.a\[0=3,x.a\\b=4",
    r"x.a.b=c\\d,x.s=c\nd",
    "x.a.c[0]=5",
    "x.a.c[1]=5",
    "x.a.c[4]=5",
    "x.l[1]=5",
    "x.a.c[0].d=5",
    "x.l[0].d=5,x.l[0].e=6",
    "x.a.c={1,2,x}",
    "x.a.c={}",
    "x.a.c={true,null,}",
    "x.a.c={1,2},x.s=u",
    "x.a=1",
    "x.a.b.c=1",
    "x.s.t=1",
    "x.a.c.d=1",
    "x.n.m=1",
    "x.a=null",
    "x.a.d.e=null",
    "x=null",
    "x.l[0]=null",
    "x.a.c]=1",
    "x.s=1,",
    "x.v=${V}",
    "x.v=${N}",
    "x.v=${NOPE}",
    "x.v=${L}",
    "x.v=${E}",
    "x.${V}=1",
    r"x.v=\${V}",
    "x.v=$V",
    "x.s=1 x.s=2",
    "x.l[0]=1 x.l[1]=2",
    "x.a.c[1]=9 x.a.c[0]=8",
    "x.l[0]=1 x.l[0].b=2",
    "labels.app=new",
    "labels=null",
    "x.v=[1],x.w=},x.l[00]=1,x.m[+1]=1",
    r"x.v=+5,x.w=-0,x.y=00,x.z=-01,x.a=1_000,x.s=\",
    r"x.v={a\,b,c},x.w={,},x.y=NULL",
    "x.o.p[0].q[1].r=ü",
];

/// What both refuse; OPA with a panic where the last ones are concerned.
const REFUSED: [&str; 17] = [
    "x.a.b",
    "x",
    "x.a.c={1,2",
    "x.a.c={a,{b,c}}",
    "x.=1",
    "x..b=1",
    "x.l[]=1",
    "x.l[a]=1",
    "x.l[-1]=1",
    "x.l[0=1",
    "x.l[0]x=1",
    "x.l[65537]=1",
    ",x.s=1",
    "x.s=1,,x.t=2",
    "x.a.b,x.s=1",
    "x.a=1 x.a.b=2",
    "x.l[0]=1 x.l.b=2",
];

/// What OPA takes without any effect, or makes something strange of; here it is an error.
const REFUSED_BY_US: [&str; 6] = ["=1", ".x=1", "[0]=1", "x.l[0]", "x.l[0].=1", "x.v={a}y=1"];

fn ours(set: &[&str], files: &[&str]) -> Result<Value, String> {
    let env = EnvPolicy::allow(["V", "N", "E", "L", "NOPE", "C"]).with_lookup(|name| {
        let all = ENV.iter().chain(&[("C", "a,b")]);
        let found = all.into_iter().find(|(known, _)| *known == name)?;
        Some(found.1.into())
    });
    let overrides = Overrides::new(set, files).map_err(|error| error.to_string())?;
    let template = Template::parse("opa.yaml", BASE).unwrap();
    let document = template
        .with_overrides(overrides)
        .render("orders", &env)
        .map_err(|error| error.to_string())?;
    Ok(document.to_json())
}

async fn real(opa: &Opa, set: &[&str], files: &[&str]) -> Result<Value, String> {
    let arguments = set.iter().flat_map(|text| ["--set", text]);
    let files = files.iter().flat_map(|text| ["--set-file", text]);
    let arguments: Vec<_> = arguments.chain(files).collect();
    let env: Vec<_> = ENV.into_iter().chain([("C", "a,b")]).collect();
    let mut active = opa.active_configuration(BASE, &arguments, &env).await?;
    let members = active.as_object_mut().unwrap();
    members.retain(|name, _| !name.starts_with("default_"));
    if let Some(labels) = members.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|name, _| name != "id" && name != "version");
    }
    Ok(active)
}

fn flags(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[tokio::test]
async fn overrides_mean_what_they_mean_to_opa() {
    let Some(opa) = peers::opa() else { return };
    for text in SAME {
        let set = flags(text);
        assert_eq!(ours(&set, &[]), real(&opa, &set, &[]).await, "{text}");
    }
}

#[tokio::test]
async fn what_opa_refuses_is_refused() {
    let Some(opa) = peers::opa() else { return };
    for text in REFUSED {
        let set = flags(text);
        ours(&set, &[]).expect_err(text);
        real(&opa, &set, &[]).await.expect_err(text);
    }
}

#[tokio::test]
async fn the_differences_are_known() {
    let Some(opa) = peers::opa() else { return };
    for text in REFUSED_BY_US {
        ours(&[text], &[]).expect_err(text);
        real(&opa, &[text], &[]).await.expect(text);
    }
    // A variable that is structure to OPA.
    let set = ["x.v=${C}"];
    assert_eq!(ours(&set, &[]).unwrap()["x"]["v"], json!("a,b"));
    let refused = real(&opa, &set, &[]).await.unwrap_err();
    assert!(refused.contains("key \"b\" has no value"), "{refused}");
    // Arrays in arrays.
    let set = ["x.l[0][1]=5"];
    assert_eq!(ours(&set, &[]).unwrap()["x"]["l"], json!([[null, 5]]));
    assert_eq!(
        real(&opa, &set, &[]).await.unwrap()["x"]["l"],
        json!([null, [null, 5]])
    );
}

#[tokio::test]
async fn files_mean_what_they_mean_to_opa() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (text, number) = (write("text", "  hello ${V}\n\n"), write("number", "5\n"));
    let empty = write("empty", "");
    for (set, file) in [
        (None, format!("x.v={text},x.w={number},x.a.c[1]={empty}")),
        (None, format!("x.v={{{text},{number}}}")),
        (Some("x.v=1"), format!("x.v={text}")),
        (None, "x.v=".to_owned()),
    ] {
        let set: Vec<_> = set.into_iter().collect();
        let real = real(&opa, &set, &[&file]).await;
        assert_eq!(ours(&set, &[&file]), real, "{file}");
    }
    for file in ["x.v=/nowhere/at/all", "x.v=${V}", "x.v=/", "x.v"] {
        ours(&[], &[file]).expect_err(file);
        real(&opa, &[], &[file]).await.expect_err(file);
    }
}

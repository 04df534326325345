//! The `oras` command: puts bundles into registries.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::docker_registry::{PASSWORD, RunningRegistry, USER};
use super::fetch::{self, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    name: "oras",
    version: "v1.3.6",
    install,
};

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let module = format!("oras.land/oras/cmd/oras@{}", RECIPE.version);
    fetch::run(
        fetch::step("go")
            .args(["install", &module])
            .env("GOBIN", folder),
    )?;
    Ok(folder.join("oras"))
}

/// The installed `oras` command. Its methods panic, with all that it wrote, where it fails.
#[derive(Clone, Debug)]
pub struct Oras {
    program: PathBuf,
}

impl Oras {
    pub(super) fn at(program: PathBuf) -> Oras {
        Oras { program }
    }

    /// What `oras version` prints.
    pub fn version(&self) -> String {
        fetch::run(Command::new(&self.program).arg("version"))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Pushes the file `name` of a folder as the only layer, of this type, of the image
    /// `<repository>:<tag>`, as OPA's documentation says.
    pub fn push(
        &self,
        registry: &RunningRegistry,
        image: &str,
        folder: &Path,
        name: &str,
        kind: &str,
    ) {
        std::fs::write(folder.join("config.json"), "{}").expect("the folder can be written to");
        let config = "config.json:application/vnd.oci.image.config.v1+json";
        let image = format!("{}/{image}", registry.address());
        let layer = format!("{name}:{kind}");
        self.run(folder, &["push"], &["--config", config, &image, &layer]);
    }

    /// Makes an image index of images of the same repository, by their tags.
    pub fn index(&self, registry: &RunningRegistry, image: &str, folder: &Path, tags: &[&str]) {
        let image = format!("{}/{image}", registry.address());
        let arguments: Vec<_> = [&*image].into_iter().chain(tags.iter().copied()).collect();
        self.run(folder, &["manifest", "index", "create"], &arguments);
    }

    /// The digest that a tag stands for now.
    pub fn digest(&self, registry: &RunningRegistry, image: &str, folder: &Path) -> String {
        let image = format!("{}/{image}", registry.address());
        self.run(folder, &["resolve"], &[&image]).trim().to_owned()
    }

    fn run(&self, folder: &Path, command: &[&str], arguments: &[&str]) -> String {
        let mut oras = Command::new(&self.program);
        // No credentials of whoever runs the tests.
        oras.current_dir(folder).env("DOCKER_CONFIG", folder);
        oras.args(command)
            .args(["--plain-http", "--username", USER, "--password", PASSWORD])
            .args(arguments);
        fetch::run(&mut oras).unwrap_or_else(|error| panic!("{error}"))
    }
}

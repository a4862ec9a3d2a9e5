//! The Kubernetes manifests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Outcome, Verdict, accepts, outcome, refused, run};
use crate::{image, setup};

/// What the image's entry point is called in probes, which do not go through it.
const INSIDE: &str = "/conntrack-guard";
const RENDERS: &str = "what kustomize makes of the manifests follows the API's schema";

pub(super) fn check(dir: &Path, binary: &Path) -> Result<Vec<Outcome>> {
    let kustomization = yaml(&dir.join("kustomization.yaml"))?;
    let daemonset = yaml(&dir.join("daemonset.yaml"))?;
    let mut outcomes = vec![
        outcome("the kustomization names exactly the files beside it", names_all(dir, &kustomization)),
        outcome("the kustomization names the image that this tree builds", names_image(&kustomization)),
        outcome("the shipped policy is valid", policy(&dir.join("policy.toml"), binary)),
        outcome("the daemon takes the pod's arguments and probes", command_lines(&daemonset, binary)),
        outcome("the pod mounts what the daemon reads and writes", mounts(&daemonset, &kustomization)),
    ];
    for file in strings(&kustomization["resources"]) {
        outcomes.push(outcome(format!("{file} follows the API's schema"), valid(&dir.join(file))));
    }

    let scratch = tempfile::tempdir()?;
    let broken = scratch.path().join("broken.yaml");
    let whole = fs::read_to_string(dir.join("daemonset.yaml")).context("cannot read daemonset.yaml")?;
    fs::write(&broken, whole.replacen("hostNetwork:", "hostNetworks:", 1))?;
    outcomes.push(outcome("the schema check refuses a misspelt field", refused(valid(&broken), "hostNetworks")));

    outcomes.push(match render(dir) {
        Some(rendered) => outcome(RENDERS, rendered.and_then(|text| rendered_is_sound(&text, scratch.path()))),
        None => Outcome {
            name: RENDERS.to_owned(),
            verdict: Verdict::Skipped(
                "neither kubectl nor kustomize is here; Debian has both from trixie on".to_owned(),
            ),
        },
    });
    Ok(outcomes)
}

/// Holds every document of a file against the API's schema, unknown fields refused.
fn valid(manifest: &Path) -> Result<()> {
    let python = setup::manifest_validator();
    let said = run(Command::new(python).args(["-m", "kubernetes_validate", "--strict"]).arg(manifest))?;
    // It is content with a file that holds no document.
    ensure!(said.contains(" passed for resource "), "kubernetes-validate judged nothing in {}", manifest.display());
    Ok(())
}

/// The manifests as kustomize renders them, or `None` where there is no kustomize.
fn render(dir: &Path) -> Option<Result<String>> {
    let tools: [(&str, &[&str]); 2] = [("kustomize", &["build"]), ("kubectl", &["kustomize"])];
    let (program, verb) = tools.into_iter().find(|(program, verb)| {
        Command::new(program).args(*verb).arg("--help").output().is_ok_and(|output| output.status.success())
    })?;
    // Only stdout is the answer; warnings go beside it.
    let answer = Command::new(program).args(verb).arg(dir).output();
    Some(answer.with_context(|| format!("cannot run {program}")).and_then(|output| {
        ensure!(output.status.success(), "{program} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).with_context(|| format!("{program} wrote something other than UTF-8"))
    }))
}

/// It follows the schema, and the generated ConfigMap is the one that the pods mount, in the same namespace.
fn rendered_is_sound(rendered: &str, scratch: &Path) -> Result<()> {
    let file = scratch.join("rendered.yaml");
    fs::write(&file, rendered)?;
    valid(&file)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).context("kustomize wrote no valid YAML")?;
    let find = |kind: &str| {
        documents.iter().find(|document| document["kind"] == kind).with_context(|| format!("no {kind} was rendered"))
    };
    let (map, daemonset) = (find("ConfigMap")?, find("DaemonSet")?);
    ensure!(map["data"]["policy.toml"].is_string(), "the ConfigMap has no key policy.toml");
    let name = &map["metadata"]["name"];
    let mounted = list(&daemonset["spec"]["template"]["spec"]["volumes"]);
    ensure!(
        mounted.iter().any(|volume| &volume["configMap"]["name"] == name),
        "no volume of the DaemonSet is the ConfigMap {name}"
    );
    for document in [map, daemonset] {
        let namespace = &document["metadata"]["namespace"];
        ensure!(namespace == "conntrack-guard", "{} is in the namespace {namespace}", document["kind"]);
    }
    Ok(())
}

fn names_all(dir: &Path, kustomization: &Value) -> Result<()> {
    let mut named: BTreeSet<String> = strings(&kustomization["resources"]).into_iter().collect();
    named.extend(policy_files(kustomization));
    named.insert("kustomization.yaml".to_owned());
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        there.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let missing: Vec<_> = named.difference(&there).collect();
    let unnamed: Vec<_> = there.difference(&named).collect();
    ensure!(
        missing.is_empty() && unnamed.is_empty(),
        "named but not there: {missing:?}; there but not named: {unnamed:?}"
    );
    Ok(())
}

fn names_image(kustomization: &Value) -> Result<()> {
    let image = &kustomization["images"][0];
    ensure!(
        image["newName"] == image::NAME && image["newTag"] == image::VERSION,
        "the kustomization has {}:{}, `cargo xtask image` makes {}:{}",
        image["newName"],
        image["newTag"],
        image::NAME,
        image::VERSION
    );
    Ok(())
}

fn policy(file: &Path, binary: &Path) -> Result<()> {
    run(Command::new(binary).arg("check").arg(file)).map(drop)
}

fn command_lines(daemonset: &Value, binary: &Path) -> Result<()> {
    let container = container(daemonset)?;
    let arguments = strings(&container["args"]);
    ensure!(arguments.first().is_some_and(|verb| verb == "run"), "the pod should run the guard, not {arguments:?}");
    accepts(binary, &arguments).with_context(|| format!("args: {arguments:?}"))?;
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let command = strings(&container[probe]["exec"]["command"]);
        let [program, arguments @ ..] = &command[..] else { anyhow::bail!("{probe} runs nothing") };
        ensure!(program == INSIDE, "{probe} runs {program}; the image holds {INSIDE} only");
        accepts(binary, arguments).with_context(|| format!("{probe}: {command:?}"))?;
    }
    Ok(())
}

fn mounts(daemonset: &Value, kustomization: &Value) -> Result<()> {
    let container = container(daemonset)?;
    let volumes = list(&daemonset["spec"]["template"]["spec"]["volumes"]);
    let mounts = list(&container["volumeMounts"]);
    let mounted_at = |path: &str| {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path);
        let mount = mount.with_context(|| format!("nothing is mounted at {path}"))?;
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
        volume.map(|volume| (mount, volume)).with_context(|| format!("the mount at {path} has no volume"))
    };

    let arguments = strings(&container["args"]);
    let config = arguments.iter().skip_while(|word| *word != "--config").nth(1).context("the pod gives no --config")?;
    let (folder, file) = config.rsplit_once('/').context("--config should be an absolute path")?;
    let (mount, policy) = mounted_at(folder)?;
    ensure!(mount["subPath"].is_null(), "a subPath never brings a changed ConfigMap to the running guard");
    ensure!(
        kustomization["generatorOptions"]["disableNameSuffixHash"] == true,
        "a ConfigMap whose name follows its content rolls the pods, and never changes under a running guard"
    );
    let generated = &kustomization["configMapGenerator"][0]["name"];
    ensure!(&policy["configMap"]["name"] == generated, "{folder} is not the generated ConfigMap {generated}");
    ensure!(policy_files(kustomization).iter().any(|name| name == file), "the ConfigMap has no file {file}");

    let (journal, volume) = mounted_at("/var/lib/conntrack-guard")?;
    ensure!(volume["hostPath"]["path"] == journal["mountPath"], "the journal has to be at the same path on the host");
    for path in ["/var/lib/conntrack-guard", "/run/conntrack-guard"] {
        ensure!(mounted_at(path)?.0["readOnly"] != true, "{path} has to be writable");
    }
    ensure!(volumes.len() == mounts.len() && mounts.len() == 3, "the guard needs three mounts and no more");
    Ok(())
}

fn container(daemonset: &Value) -> Result<&Value> {
    daemonset.pointer("/spec/template/spec/containers/0").context("the DaemonSet has no container")
}

fn policy_files(kustomization: &Value) -> Vec<String> {
    strings(&kustomization["configMapGenerator"][0]["files"])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<String> {
    list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn yaml(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid YAML", path.display()))
}

//! `schema`: JSON Schemas of configuration files.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use trireme_config::json_schema::{Kind, schema};

use crate::{
    output::{Format, print_json},
    serve::registry,
};

/// Print the JSON Schema (draft 2020-12) of a kind of configuration file, for editors.
///
/// An editor with the YAML language server completes and checks with it, by a comment at the head of a file
///
///   # yaml-language-server: $schema=/path/to/jobs.schema.json
///
/// or by its settings:
///
///   trireme schema jobs > jobs.schema.json
///   trireme schema --directory .vscode          all of them, as config.schema.json and so on
///
/// What a schema does not know (which jobs there are, which contexts clash) `trireme checkconfig` does.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct SchemaArgs {
    /// Of which files; all of them as one object when absent.
    #[arg(value_enum)]
    pub kind: Option<FileKind>,
    /// Write files NAME.schema.json into this directory, which need not be there yet, instead of printing.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// A schema is JSON either way.
    #[arg(short, long, value_enum, default_value = "json", hide = true)]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileKind {
    /// config.yaml and what supplements it
    Config,
    /// plugins.yaml and what supplements it
    Plugins,
    /// files of the job tree
    Jobs,
    /// .prow.yaml and .prow/*.yaml
    ProwYaml,
}

impl FileKind {
    const ALL: [(Self, &'static str, Kind); 4] = [
        (Self::Config, "config", Kind::Config),
        (Self::Plugins, "plugins", Kind::Plugins),
        (Self::Jobs, "jobs", Kind::Jobs),
        (Self::ProwYaml, "prow-yaml", Kind::ProwYaml),
    ];
}

/// # Errors
/// When the directory cannot be written to.
pub fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let registry = registry();
    let wanted = FileKind::ALL
        .into_iter()
        .filter(|(kind, ..)| args.kind.is_none_or(|wanted| wanted == *kind))
        .map(|(_, name, kind)| (name, schema(kind, Some(&registry))));
    if let Some(directory) = &args.directory {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        for (name, schema) in wanted {
            let path = directory.join(format!("{name}.schema.json"));
            let text = serde_json::to_string_pretty(&schema)? + "\n";
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        return Ok(());
    }
    let all: serde_json::Map<String, serde_json::Value> = wanted
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    match all.values().next() {
        Some(only) if args.kind.is_some() => print_json(only),
        _ => print_json(&all),
    }
}

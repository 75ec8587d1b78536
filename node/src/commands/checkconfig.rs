//! `checkconfig`.

use serde_json::json;
use trireme_config::Diagnostic;

use super::files;
use crate::{
    cli::CheckconfigArgs,
    configuration::load,
    exit::{CONFIG, coded},
    output::{Format, print, print_json},
    serve::registry,
};

/// # Errors
/// When the configuration has errors, or warnings with `--strict`.
pub fn run(args: &CheckconfigArgs) -> anyhow::Result<()> {
    let (counts, errors, warnings) = match files::read(&args.files) {
        Err(found) => ((0, 0, 0), found, Vec::new()),
        Ok(set) => {
            let loaded = load(&set, &registry());
            (loaded.config.job_counts(), loaded.errors, loaded.warnings)
        }
    };
    match args.output {
        Format::Json => print_json(&json!({
            "presubmits": counts.0, "postsubmits": counts.1, "periodics": counts.2,
            "errors": errors, "warnings": warnings,
        }))?,
        Format::Text => print(&text(counts, &errors, &warnings))?,
    }
    if !errors.is_empty() {
        return Err(coded(CONFIG, format!("{} errors", errors.len())));
    }
    if args.strict && !warnings.is_empty() {
        return Err(coded(
            CONFIG,
            format!("{} warnings, and --strict was given", warnings.len()),
        ));
    }
    Ok(())
}

fn text(counts: (usize, usize, usize), errors: &[Diagnostic], warnings: &[Diagnostic]) -> String {
    let mut text = String::new();
    for found in errors.iter().chain(warnings) {
        text.push_str(&format!("{found}\n"));
    }
    text.push_str(&format!(
        "{} presubmits, {} postsubmits, {} periodics; {} errors, {} warnings\n",
        counts.0,
        counts.1,
        counts.2,
        errors.len(),
        warnings.len()
    ));
    text
}

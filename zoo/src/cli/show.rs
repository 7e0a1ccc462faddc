//! `emo show MODEL…`: what a model is made of and its counts block by block; of several the totals side by side.

mod core;

use anyhow::bail;
use emo_exporter::models::{Model, own};
use emo_exporter::profile::Profile;
use emo_verifier::audit::{Audit, By, audit, groups};
use emo_verifier::infer::Bindings;
use emo_verifier::report::thousands;
use emo_verifier::sym::Expr;
use serde_json::{Value, json};

use super::names::Chosen;
use super::output::{Format, count_row, json as to_json};
use super::table::table;
use super::{Outcome, Said, names};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Models of emo list, or TOML files that describe networks of one's own; '*' stands for anything
    #[arg(required = true, value_name = "MODEL|FILE.toml", value_parser = names::several_models())]
    models: Vec<Chosen<Model>>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print the TOML file that describes the model, to change numbers in
    #[arg(long, conflicts_with = "format")]
    toml: bool,
}

const EXAMPLES: &str = "\
Examples:
  emo show emo-1m                     the stages, and the counts block by block
  emo show emo-1m --toml > my.toml    a file to give a name and other numbers
  emo show my.toml emo-1m emo-2m      totals side by side
  emo show 'ssdlite-*'                those of all such models";

/// A model with what its file would count.
struct Counted<'a> {
    model: &'a Model,
    audit: Audit,
    /// Of the file.
    bytes: usize,
}

pub fn run(args: &Args) -> Said {
    let models = names::all(&args.models);
    if args.toml {
        let [model] = models.as_slice() else { bail!("--toml: expected one model, found {}", models.len()) };
        return Ok((own::write(model)?, Outcome::Pass));
    }
    let counted: Vec<Counted> = models.iter().map(Counted::of).collect::<anyhow::Result<_>>()?;
    let text = match (args.format, counted.as_slice()) {
        (Format::Text, [one]) => one.text(),
        (Format::Json, [one]) => to_json(&one.fields())?,
        (Format::Text, several) => side_by_side(several),
        (Format::Json, several) => {
            let models: Vec<Value> = several.iter().map(Counted::totals).collect();
            to_json(&json!({ "schema": "emo.show.models/1", "models": models }))?
        }
    };
    Ok((text, Outcome::Pass))
}

impl<'a> Counted<'a> {
    /// From the file of the reference target, whose weights nothing needs.
    fn of(model: &'a Model) -> anyhow::Result<Self> {
        let profile = Profile::named("reference").expect("the target that folds nothing is always there");
        let outline = emo_exporter::outline(model, &model.target(profile))?;
        Ok(Self { model, audit: audit(&outline.model, &Bindings::new()), bytes: outline.bytes })
    }

    fn text(&self) -> String {
        let Self { model, audit, .. } = self;
        let mut text = core::text(model);
        text += &format!(
            "\n{}, {} classes, counted from the file of the reference target:\n\n",
            size(model),
            model.classes
        );
        // Where blocks are not named as EMO's are, modules stand for them.
        let mut rows: Vec<_> = audit.blocks.iter().map(|(name, counts)| count_row(name, counts)).collect();
        if rows.is_empty() {
            let modules = groups(audit, By::Scope { depth: 2 });
            rows.extend(modules.iter().map(|module| count_row(&module.name, &module.counts)));
        }
        rows.push(count_row("total", &audit.totals));
        text + &table(&["block", "params", "MACs", "FLOPs (fvcore)"], rows)
    }

    fn fields(&self) -> Value {
        let mut fields = core::fields(self.model);
        fields["schema"] = json!("emo.show/1");
        fields["model"] = json!(self.model.name);
        fields["counts"] = json!(self.audit);
        fields
    }

    /// What several models are held against each other by.
    fn figures(&self) -> [(&'static str, Option<u64>); 5] {
        let (totals, peak) = (&self.audit.totals, &self.audit.peak_memory);
        [
            ("params", totals.params.count()),
            ("macs", totals.cost.macs.count()),
            ("fvcore", totals.cost.fvcore.count()),
            ("peak_bytes", peak.bytes.as_ref().and_then(Expr::count)),
            ("file_bytes", Some(self.bytes as u64)),
        ]
    }

    fn totals(&self) -> Value {
        let mut fields = json!({ "model": self.model.name, "classes": self.model.classes });
        for (name, figure) in self.figures() {
            fields[name] = json!(figure);
        }
        fields
    }
}

/// Height and width of the input that a model is counted for.
fn size(model: &Model) -> String {
    let (height, width) = model.published_size();
    format!("{height} × {width}")
}

fn side_by_side(several: &[Counted]) -> String {
    let header = ["", "params", "MACs", "FLOPs (fvcore)", "peak memory", "file size"];
    let rows = several.iter().map(|counted| {
        let figures = counted.figures().map(|(_, figure)| figure.map_or("?".to_owned(), thousands));
        std::iter::once(counted.model.name.to_string()).chain(figures).collect()
    });
    let table = table(&header, rows);
    let mut sizes: Vec<String> = several.iter().map(|counted| size(counted.model)).collect();
    sizes.dedup();
    let sizes = match &sizes[..] {
        [size] => size.clone(),
        sizes => format!("{}, in turn", sizes.join(", ")),
    };
    format!(
        "{table}\nOne image of {sizes}, float32, counted from the file of the reference target.\n\
         Peak memory is that of the values between the nodes, in bytes, as is the size.\n"
    )
}

//! What subcommands share: formats, arguments, the tables of counts.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::ValueEnum;
use emo_exporter::models::Task;
use emo_exporter::target::Output;
use emo_exporter::weights::Origin;
use emo_proto::plain;
use emo_verifier::audit::{Audit, Counts, Port};
use emo_verifier::finding::Finding;
use emo_verifier::identity::Identity;
use emo_verifier::models::claim::Claim;
use emo_verifier::models::figures::Published;
use emo_verifier::models::figures::dense::Dense;
use emo_verifier::range::{LARGEST, Range, SMALLEST_NORMAL};
use emo_verifier::report::{counted, thousands};
use emo_verifier::runtime::{Runtime as _, Tract};
use emo_verifier::sym::Expr;
use emo_verifier::verify::probes::Probed;
use serde::Serialize;
use serde_json::{Value, json};

use super::Outcome;
use super::table::table;

/// The code of what is told of the boxes that a file keeps.
pub const KEPT: &str = "kept-boxes";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// JSON as a file has it, with a line's end; hidden characters of names are escaped.
pub fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value).context("the report has no JSON form")?;
    Ok(plain::json(&text).into_owned() + "\n")
}

/// What is known of a file after its counts, and after its run where there was one.
pub struct Report<'a> {
    pub identity: &'a Identity,
    pub audit: &'a Audit,
    pub claim: &'a Claim,
    pub numerics: Option<&'a Probed>,
    /// Of the tensors that are float16.
    pub ranges: Option<&'a [Range]>,
    pub findings: &'a [Finding],
}

/// A count of the file, what rewriting took out of it or, where negative, put in, and the published one.
struct Column {
    name: &'static str,
    file: i64,
    removed: i64,
    published: Option<u64>,
}

impl Report<'_> {
    pub fn verdict(&self) -> Outcome {
        let numerics = self.numerics.is_none_or(|n| n.holds);
        let fit = self.ranges.is_none_or(|ranges| ranges.iter().all(Range::fits));
        let run = if numerics && fit { Outcome::Pass } else { Outcome::Fail };
        run.max(Outcome::of(self.findings))
    }

    pub fn word(&self) -> &'static str {
        match self.verdict() {
            Outcome::Pass if self.numerics.is_none() => "unverified",
            outcome => outcome.name(),
        }
    }

    /// The interface in a line: `input [1, 3, 224, 224] → logits [1, 1000]`.
    fn interface(&self) -> String {
        let batch = self.identity.batch.map_or("batch".to_owned(), |n| n.to_string());
        let (height, width) = self.identity.size;
        let port = |port: &Port| {
            let dims = port.shape.iter().flatten().map(|extent| match extent.count() {
                Some(n) => n.to_string(),
                None => "batch".to_owned(),
            });
            format!("{} [{}]", port.name, dims.collect::<Vec<_>>().join(", "))
        };
        let outputs = match &self.audit.outputs[..] {
            [first, .., last] => format!("{} to {}", port(first), port(last)),
            outputs => outputs.iter().map(port).collect(),
        };
        match self.identity.image {
            true => format!("image [{batch}, {height}, {width}, 3] of bytes → {outputs}"),
            false => format!("input [{batch}, 3, {height}, {width}] → {outputs}"),
        }
    }

    /// The counts of the file, stage by stage, beside the published ones.
    pub fn text(&self, subject: &str) -> String {
        let Identity { model, profile, opset, ir_version, .. } = self.identity;
        let mut text = String::new();
        let _ = writeln!(text, "{}  {subject}", self.word());
        let _ =
            writeln!(text, "{model} for the target {}, opset {opset}, ir_version {ir_version}", profile.name);
        let _ = writeln!(text, "{}", self.interface());
        let _ = writeln!(text, "weights {}", self.identity.weights);
        let _ = writeln!(text);
        text += &self.counts();
        let _ = writeln!(text);
        text += &self.verification();
        text += &self.ranges();
        for Finding { code, place, message, .. } in self.findings {
            let at = if place.is_empty() { String::new() } else { format!("{place}: ") };
            let _ = writeln!(text, "{code}: {at}{message}");
        }
        text
    }

    fn counts(&self) -> String {
        let mut rows: Vec<Vec<String>> = self.audit.stages().iter().map(|(n, c)| count_row(n, c)).collect();
        let (published, columns) = (self.published(), self.columns());
        let row = |name: &str, of: fn(&Column) -> i64| {
            std::iter::once(name.to_owned())
                .chain(columns.iter().map(|column| thousands(of(column))))
                .collect()
        };
        rows.push(row("in the file", |column| column.file));
        if !self.identity.rewrites.is_empty() {
            rows.push(row("folded", |column| column.removed));
            rows.push(row("the model", |column| column.file.saturating_add(column.removed)));
        }
        if let Some(p) = published {
            rows.push(vec!["published".to_owned(), p.params.to_owned(), String::new(), p.flops.to_owned()]);
        }
        let mut text = table(&["", "params", "MACs", "FLOPs (fvcore)"], rows);
        if self.identity.batch != Some(1) {
            let batch = self.identity.batch.map_or("one image".to_owned(), |n| format!("a batch of {n}"));
            let _ = writeln!(text, "counted for {batch}");
        }
        if published.is_some() && self.claim.holds {
            let _ =
                writeln!(text, "the published figures hold: params truncated to 0.1M, FLOPs rounded to 1M");
        } else if let Some(published) = &self.claim.dense {
            let _ = writeln!(text, "{}", dense(published));
        } else if published.is_none() {
            let what = match self.identity.model.is_own() {
                true => "network",
                false => "input size, batch or class count",
            };
            let _ = writeln!(text, "no figures are published for this {what}");
        }
        text += &self.rewrites();
        text
    }

    /// The published figures, where there are any for this input size, batch, number of classes and windows.
    fn published(&self) -> Option<Published> {
        self.claim.published.filter(|_| self.identity.is_published())
    }

    /// Parameters, multiply-adds and FLOPs.
    fn columns(&self) -> [Column; 3] {
        let (totals, removed, published) = (&self.audit.totals, self.identity.removed(), self.published());
        let column = |name, file: &Expr, removed, exact: fn(&Published) -> u64| {
            let file = file.count().map_or(0, u64::cast_signed);
            Column { name, file, removed, published: published.as_ref().map(exact) }
        };
        [
            column("params", &totals.params, removed.params, |p| p.exact_params),
            column("macs", &totals.cost.macs, removed.macs, |p| p.exact_macs),
            column("fvcore", &totals.cost.fvcore, removed.fvcore, |p| p.exact_fvcore),
        ]
    }

    /// The claim as fields.
    fn claimed(&self) -> Value {
        let columns = self.columns().map(|column| {
            let Column { name, file, removed, published } = column;
            (name.to_owned(), json!({ "file": file, "removed": removed, "published": published }))
        });
        let mut claim: serde_json::Map<String, Value> = columns.into_iter().collect();
        claim.insert("published".to_owned(), json!(self.published()));
        claim.insert("holds".to_owned(), json!(self.claim.holds));
        claim.into()
    }

    /// The run beside the reference as fields.
    fn measured(&self) -> Value {
        let Some(row) = self.numerics else { return Value::Null };
        let mut fields = json!({
            "runtime": Tract.name(),
            "probe": row.shape,
            "tolerance": self.identity.tolerance(),
        });
        if let (Value::Object(fields), Value::Object(measures)) = (&mut fields, json!(row.difference)) {
            fields.extend(measures);
        }
        fields["top1"] = json!(row.top1);
        fields["holds"] = json!(row.holds);
        fields
    }

    /// What the profile's rewrites removed, by kind.
    fn rewrites(&self) -> String {
        let mut text = String::new();
        for kind in emo_exporter::rewrite::Kind::ALL {
            let rewrites = self.identity.rewrites.iter().filter(|r| r.kind == kind);
            let (n, params, macs, fvcore) =
                rewrites.fold((0_usize, 0, 0, 0), |(n, params, macs, fvcore), r| {
                    (n + 1, params + r.parameters, macs + r.macs, fvcore + r.fvcore)
                });
            if n > 0 {
                let [params, macs, fvcore] = [params, macs, fvcore].map(|n: i64| thousands(n));
                let what = kind.describe(n);
                let _ = writeln!(text, "{what}: {params} params, {macs} MACs, {fvcore} FLOPs (fvcore)");
            }
        }
        text
    }

    fn verification(&self) -> String {
        let checked = self.numerics.and_then(|row| Some((row, row.difference?)));
        let Some((n, difference)) = checked else { return "numerics not checked\n".to_owned() };
        let tolerance = self.identity.tolerance();
        // A classifier's images, a segmenter's pixels; a detector's scores are of no one class.
        let images = n.shape.first().copied().unwrap_or(1);
        let task = self.identity.model.task();
        let (what, top1) = match (task, n.top1) {
            (Task::Classify, (agree, of)) => ("logit", format!("; top-1 agrees on {agree} of {of}")),
            (Task::Segment, (agree, of)) => {
                let (agree, of) = (thousands(agree as u64), thousands(of as u64));
                ("value", format!("; the class agrees on {agree} of {of} pixels"))
            }
            (Task::Detect, _) if self.identity.output == Output::Nms => {
                let judged = self.findings.iter().all(|finding| finding.code != KEPT);
                let kept = if judged { "; those that are kept are the reference's" } else { "" };
                ("value of its output", format!(", before boxes are suppressed{kept}"))
            }
            (Task::Detect | Task::Features, _) => ("value of its output", String::new()),
        };
        let relation = if n.holds { "within" } else { "beyond" };
        // The engine computes in float32 what is stored in float16.
        let (stored, noise) = match self.identity.half {
            true => {
                (" (float16 weights, float32 arithmetic)", format!(", SQNR {:.0} dB", difference.sqnr_db))
            }
            false => ("", String::new()),
        };
        format!(
            "{}{stored} against the f64 reference on {}: max error {:.1e}, {:.1e} of the largest {what}, \
             {relation} {:.0e} ({}){noise}{top1}\n",
            Tract.name(),
            counted(images, "image"),
            difference.max_abs,
            difference.relative(),
            tolerance.bound,
            tolerance.name,
        )
    }

    /// How far the float16 tensors are from the ends of float16.
    fn ranges(&self) -> String {
        let Some(ranges) = self.ranges else { return String::new() };
        let mut text = String::new();
        for range in ranges.iter().filter(|range| !range.fits()) {
            let Range { name, largest, .. } = range;
            let _ = writeln!(
                text,
                "half-overflow: {name} reaches {largest:.3e}, beyond float16's {LARGEST}; --dtype f32 holds it"
            );
        }
        if let Some(widest) = ranges.iter().max_by(|a, b| a.largest.total_cmp(&b.largest)) {
            let (n, Range { name, largest, .. }) = (ranges.len(), widest);
            let _ = writeln!(
                text,
                "float16 range: {n} tensors, the largest value {largest:.3e} ({name}) of {LARGEST}"
            );
        }
        if let Some(smallest) = ranges.iter().max_by(|a, b| a.below_normal.total_cmp(&b.below_normal)) {
            let (Range { name, below_normal, .. }, n) =
                (smallest, ranges.iter().filter(|r| r.below_normal > 0.01).count());
            let share = 100.0 * below_normal;
            let _ = writeln!(
                text,
                "float16 range: more than 1 % of {n} tensors lies below {SMALLEST_NORMAL:.1e}, where digits are lost, \
                 most of {name}: {share:.1} %"
            );
        }
        text
    }

    /// The same as fields.
    pub fn fields(&self) -> Value {
        let Identity {
            model,
            profile,
            opset,
            ir_version,
            batch,
            size,
            image,
            output,
            half,
            weights,
            rewrites,
        } = self.identity;
        let folds: Vec<Value> = rewrites
            .iter()
            .map(|r| {
                json!({ "kind": r.kind.name(), "what": r.what, "into": r.into,
                        "params": r.parameters, "macs": r.macs, "fvcore": r.fvcore })
            })
            .collect();
        let counts = |(name, counts): &(String, Counts)| {
            let mut value = json!(counts);
            value["name"] = json!(name);
            value
        };
        json!({
            "verdict": self.word(),
            "model": model.to_string(),
            "profile": profile.name,
            "opset": opset,
            "ir_version": ir_version,
            "batch": batch,
            "size": [size.0, size.1],
            "classes": model.classes,
            "output": output.name(),
            "dtype": if *half { "f16" } else { "f32" },
            "image_input": image,
            "weights": weights,
            "nodes": self.audit.nodes,
            "highest_rank": self.audit.highest_rank,
            "float_initializers": self.audit.float_initializers,
            "totals": self.audit.totals,
            "uncounted": self.audit.uncounted,
            "stages": self.audit.stages().iter().map(counts).collect::<Vec<_>>(),
            "blocks": self.audit.blocks.iter().map(counts).collect::<Vec<_>>(),
            "folds": folds,
            "claim": self.claimed(),
            "numerics": self.measured(),
            "ranges": self.ranges,
            "findings": self.findings,
        })
    }
}

/// A line of a table of counts.
pub fn count_row(name: &str, counts: &Counts) -> Vec<String> {
    let figure = |e: &Expr| e.count().map_or_else(|| e.to_string(), thousands);
    vec![name.to_owned(), figure(&counts.params), figure(&counts.cost.macs), figure(&counts.cost.fvcore)]
}

/// A note on weights that no one trained.
pub fn untrained(origin: &Origin) -> Option<&'static str> {
    matches!(origin, Origin::Formula { .. }).then_some("untrained weights, computed from their names")
}

/// What is published of a detector or a segmenter, and by whose counter.
pub fn dense(published: &Dense) -> String {
    let Dense { params, flops, size, counter, exact_params, auxiliary, exact_flops, .. } = *published;
    let training = match auxiliary {
        0 => String::new(),
        n => format!(" and {} of the auxiliary head of training", thousands(n)),
    };
    let flops = match exact_flops {
        None => format!("{flops} FLOPs as a mean over pictures"),
        Some(exact) => {
            let (height, width) = size;
            format!("{flops} FLOPs at {height} × {width} by {} ({})", counter.name(), thousands(exact))
        }
    };
    format!("published: {params} parameters ({}{training}), {flops}", thousands(exact_params))
}

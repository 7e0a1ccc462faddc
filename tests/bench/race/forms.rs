//! Writes a model as a profile has it, with single layers spelled otherwise, for the race to measure.
//!
//! `forms MODEL PROFILE OUT [LAYER=SPELLING]…`, spellings by the names of [`SPELLINGS`], `opset=20` and
//! `output=logits-small`. The profile's other rules hold, so only what a runtime takes can be tried.

use std::process::ExitCode;

use emo_exporter::models::Model;
use emo_exporter::profile::{
    Attention, Expansion, Forms, Gelu, LayerNorm, Mix, Opset, Padding, Pool, Profile, Qk, Resizing, Silu,
    Windows,
};
use emo_exporter::target::{Output, Target};
use emo_exporter::weights::Spec;
use emo_proto::{Error, Result};

/// A layer, a spelling of it, and what that changes.
type Spelling = (&'static str, &'static str, fn(&mut Forms));

const SPELLINGS: [Spelling; 33] = [
    ("fold", "no", |f| f.fold = false),
    ("fold", "yes", |f| f.fold = true),
    ("merge", "no", |f| f.merge = false),
    ("merge", "yes", |f| f.merge = true),
    ("split", "no", |f| f.split = false),
    ("split", "yes", |f| f.split = true),
    ("unpartition", "first", |f| f.unpartition_first = true),
    ("unpartition", "last", |f| f.unpartition_first = false),
    ("expansion", "conv", |f| f.expansion = Expansion::Conv),
    ("expansion", "rows", |f| f.expansion = Expansion::Rows),
    ("attention", "tokens", |f| f.attention = Attention::Tokens),
    ("attention", "channels", |f| _ = channels(f)),
    ("windows", "strips", |f| *channels(f).0 = Windows::Strips),
    ("windows", "depth", |f| *channels(f).0 = Windows::SpaceToDepth),
    ("qk", "windows", |f| *channels(f).1 = Qk::OfWindows),
    ("qk", "map", |f| *channels(f).1 = Qk::OfMap),
    ("qk", "apart", |f| *channels(f).1 = Qk::Apart),
    ("mix", "values", |f| *channels(f).2 = Mix::TransposedValues),
    ("mix", "scores", |f| *channels(f).2 = Mix::TransposedScores),
    ("norm", "operator", |f| f.layer_norm = LayerNorm::Operator),
    ("norm", "channels", |f| f.layer_norm = LayerNorm::ChannelFirst),
    ("norm", "rows", |f| f.layer_norm = LayerNorm::Rows),
    ("silu", "sigmoid", |f| f.silu = Silu::Sigmoid),
    ("silu", "quotient", |f| f.silu = Silu::Quotient),
    ("gelu", "operator", |f| f.gelu = Gelu::Operator),
    ("gelu", "erf", |f| f.gelu = Gelu::Erf),
    ("gelu", "spelled", |f| f.gelu = Gelu::Spelled),
    ("pool", "mean", |f| f.pool = Pool::ReduceMean),
    ("pool", "global", |f| f.pool = Pool::GlobalAveragePool),
    ("padding", "concat", |f| f.padding = Padding::Concat),
    ("resizing", "operator", |f| f.resizing = Resizing::LeftOut),
    ("resizing", "logits", |f| f.resizing = Resizing::Logits { widest: 256 }),
    ("resizing", "products", |f| f.resizing = Resizing::Products { widest: 256 }),
];

/// The parts of attention over channels, which it becomes where it was not.
fn channels(forms: &mut Forms) -> (&mut Windows, &mut Qk, &mut Mix) {
    if forms.attention == Attention::Tokens {
        let (windows, qk, mix) = (Windows::Strips, Qk::OfWindows, Mix::TransposedScores);
        forms.attention = Attention::Channels { windows, qk, mix };
    }
    match &mut forms.attention {
        Attention::Channels { windows, qk, mix } => (windows, qk, mix),
        Attention::Tokens => unreachable!("it was replaced above"),
    }
}

fn write(arguments: &[String]) -> Result<()> {
    let [model, profile, out, spellings @ ..] = arguments else {
        return Err(Error::new("expected MODEL PROFILE OUT [LAYER=SPELLING]…"));
    };
    let unknown = |what: &str, found: &str| Error::new(format!("no {what} {found:?}"));
    let model = Model::named(model).ok_or_else(|| unknown("model", model))?;
    let mut profile = *Profile::named(profile).ok_or_else(|| unknown("profile", profile))?;
    let (mut opset, mut output) = (profile.default_opset(), None);
    for spelling in spellings {
        let (layer, name) = spelling.split_once('=').unwrap_or((spelling, ""));
        if layer == "opset" {
            let version = name.parse().ok().and_then(Opset::version);
            opset = version.ok_or_else(|| unknown("opset", name))?;
            continue;
        }
        if layer == "output" {
            output = Some(Output::named(name).ok_or_else(|| unknown("output", name))?);
            continue;
        }
        let known = SPELLINGS.iter().find(|s| (s.0, s.1) == (layer, name));
        known.ok_or_else(|| unknown("spelling", spelling))?.2(&mut profile.forms);
    }
    let size = model.published_size();
    let target = Target { opset, output, size, ..Target::new(Box::leak(Box::new(profile))) };
    let export = emo_exporter::export(model, &target, &Spec::Formula(0))?;
    emo_proto::file::write_atomic(out.as_ref(), &export.bytes)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match write(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a program for people")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::from(2)
        }
    }
}

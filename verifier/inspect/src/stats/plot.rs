//! Cost and parameters along the depth of a network, drawn as SVG.

use std::fmt::Write as _;

use crate::audit::{Audit, Part, estimate};
use crate::report::figure;
use crate::sym::Expr;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 84.0;
/// Height of a panel, and the room between the two.
const PANEL: f64 = 180.0;
const GAP: f64 = 48.0;
/// Bars beyond this many are too thin to see: neighbours are drawn as one.
const MOST_BARS: usize = 240;
/// Modules beyond this many are stripes that tell nothing.
const MOST_MODULES: usize = 24;
/// The largest bars are named.
const NAMED: usize = 3;

const FONTS: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";
const INK: &str = "#1f2933";
const FAINT: &str = "#7b8794";
const COST: &str = "#2f6fb3";
const PARAMS: &str = "#c2571a";

/// Neighbouring nodes that one bar stands for.
struct Bar<'a> {
    /// The most expensive of them.
    part: &'a Part,
    /// Where in the model it is: the part of its module path that first tells nodes apart.
    module: &'a str,
    /// The rest of its module path, which tells more than a node's name where there is one.
    name: String,
    macs: f64,
    params: f64,
}

/// Multiply-adds above, parameters below, node by node in the order of the file, each with its
/// running share as a line. Where a cost is a formula, it is drawn with every free dimension at 64.
#[must_use]
pub fn plot(audit: &Audit, title: &str) -> String {
    let bars = bars(&audit.parts);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="{FONTS}" font-size="12" fill="{INK}">"#
    );
    let _ = write!(svg, "\n<title>{}</title>\n", escape(title));
    let _ = writeln!(svg, r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##);
    let least = if audit.is_lower_bound() { "at least " } else { "" };
    let totals = format!(
        "{least}{} parameters, {least}{} MACs, {least}{} FLOPs (fvcore)",
        figure(&audit.totals.params),
        figure(&audit.totals.cost.macs),
        figure(&audit.totals.cost.fvcore)
    );
    text(&mut svg, LEFT, 30.0, "start", r#" font-size="17" font-weight="600""#, title);
    text(&mut svg, LEFT, 50.0, "start", &format!(r#" fill="{FAINT}""#), &totals);
    modules(&mut svg, &bars);
    let symbolic = !audit.totals.cost.macs.symbols().is_empty();
    let unit = if symbolic { "MACs, free dimensions at 64" } else { "MACs" };
    panel(&mut svg, &bars, TOP, unit, COST, |bar| bar.macs);
    panel(&mut svg, &bars, TOP + PANEL + GAP, "parameters", PARAMS, |bar| bar.params);
    let foot = TOP + 2.0 * PANEL + GAP + 28.0;
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    let caption = "nodes that cost or hold something, in the order of the file; lines: running share";
    text(&mut svg, middle, foot, "middle", &format!(r#" fill="{FAINT}""#), caption);
    svg + "</svg>\n"
}

fn bars<'a>(parts: &'a [Part]) -> Vec<Bar<'a>> {
    let amount = |count: &Expr| estimate(count).max(0) as f64;
    let is_drawn = |part: &&Part| !(part.counts.cost.macs.is(0) && part.counts.params.is(0));
    let drawn: Vec<&Part> = parts.iter().filter(is_drawn).collect();
    let shared = shared(drawn.iter().map(|part| &*part.scope));
    let bar = |part: &'a Part| Bar {
        part,
        module: part.scope.split('.').nth(shared).unwrap_or(""),
        name: match part.scope.split('.').skip(shared).collect::<Vec<_>>().join(".") {
            path if path.is_empty() => part.node.to_string(),
            path => path,
        },
        macs: amount(&part.counts.cost.macs),
        params: amount(&part.counts.params),
    };
    let each = drawn.len().div_ceil(MOST_BARS).max(1);
    let mut bars: Vec<Bar> = Vec::new();
    for (i, bar) in drawn.into_iter().map(bar).enumerate() {
        match bars.last_mut().filter(|_| i % each != 0) {
            None => bars.push(bar),
            Some(last) => {
                if bar.macs > amount(&last.part.counts.cost.macs) {
                    (last.part, last.name) = (bar.part, bar.name);
                }
                last.macs += bar.macs;
                last.params += bar.params;
            }
        }
    }
    bars
}

/// How many parts all module paths begin with.
fn shared<'a>(mut paths: impl Iterator<Item = &'a str>) -> usize {
    let Some(first) = paths.next() else { return 0 };
    let first: Vec<&str> = first.split('.').collect();
    paths.fold(first.len() - 1, |shared, path| {
        first.iter().zip(path.split('.')).take(shared).take_while(|(a, b)| *a == b).count()
    })
}

fn slot(bars: &[Bar]) -> f64 {
    (WIDTH - LEFT - RIGHT) / bars.len().max(1) as f64
}

/// Bands behind both panels, a name above each that has room for it.
fn modules(svg: &mut String, bars: &[Bar]) {
    let slot = slot(bars);
    let bottom = TOP + 2.0 * PANEL + GAP;
    let runs = || bars.chunk_by(|a, b| a.module == b.module);
    if runs().count() > MOST_MODULES {
        return;
    }
    let mut start = 0;
    for (n, run) in runs().enumerate() {
        let (x, width) = (LEFT + start as f64 * slot, run.len() as f64 * slot);
        start += run.len();
        if n % 2 == 0 {
            let height = bottom - TOP + 18.0;
            let _ = writeln!(
                svg,
                r##"<rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="{height:.1}" fill="#f0f4f8"/>"##,
                TOP - 18.0
            );
        }
        let name = run.first().map_or("", |bar| bar.module);
        if name.chars().count() as f64 * 6.5 < width {
            text(
                svg,
                x + width / 2.0,
                TOP - 5.0,
                "middle",
                &format!(r#" font-size="11" fill="{FAINT}""#),
                name,
            );
        }
    }
}

/// A panel whose top is at `top`: axis, bars, running share, the names of the largest.
fn panel(svg: &mut String, bars: &[Bar], top: f64, label: &str, colour: &str, of: impl Fn(&Bar) -> f64) {
    let (slot, bottom) = (slot(bars), top + PANEL);
    let end = LEFT + slot * bars.len().max(1) as f64;
    let largest = bars.iter().map(&of).fold(0.0, f64::max);
    let step = tick(largest);
    let scale = if largest > 0.0 { (PANEL - 18.0) / largest } else { 0.0 };
    for i in 0..=4 {
        let (value, y) = (step * f64::from(i), bottom - step * f64::from(i) * scale);
        if y < top - 1.0 || i > 0 && largest <= 0.0 {
            break;
        }
        let _ =
            writeln!(svg, r##"<line x1="{LEFT}" y1="{y:.1}" x2="{end:.1}" y2="{y:.1}" stroke="#d9e2ec"/>"##);
        let faint = format!(r#" font-size="11" fill="{FAINT}""#);
        text(svg, LEFT - 8.0, y + 4.0, "end", &faint, &short(value));
    }
    let turned = format!(
        r#" font-size="12" font-weight="600" fill="{colour}" transform="rotate(-90 18 {:.1})""#,
        top + PANEL / 2.0
    );
    text(svg, 18.0, top + PANEL / 2.0, "middle", &turned, label);
    let width = (slot - 1.0).max(slot * 0.8);
    for (i, bar) in bars.iter().enumerate().filter(|(_, bar)| of(bar) > 0.0) {
        let (x, height) = (LEFT + i as f64 * slot, (of(bar) * scale).max(0.5));
        let _ = writeln!(
            svg,
            r#"<rect x="{x:.1}" y="{:.1}" width="{width:.2}" height="{height:.1}" fill="{colour}"><title>{}: {}</title></rect>"#,
            bottom - height,
            escape(&bar.name),
            short(of(bar))
        );
    }
    share(svg, bars, top, colour, &of);
    names(svg, bars, bottom, scale, &of);
}

/// The running share of the total, from nothing to all.
fn share(svg: &mut String, bars: &[Bar], top: f64, colour: &str, of: &impl Fn(&Bar) -> f64) {
    let (slot, bottom) = (slot(bars), top + PANEL);
    let total: f64 = bars.iter().map(of).sum();
    if total <= 0.0 {
        return;
    }
    let mut sum = 0.0;
    let mut points = format!("{LEFT},{bottom:.1}");
    for (i, bar) in bars.iter().enumerate() {
        sum += of(bar);
        let (x, y) = (LEFT + (i + 1) as f64 * slot, bottom - (PANEL - 18.0) * sum / total);
        let _ = write!(points, " {x:.1},{y:.1}");
    }
    let _ = writeln!(
        svg,
        r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-opacity="0.55" stroke-dasharray="4 3"/>"#
    );
    let faint = format!(r#" font-size="11" fill="{FAINT}""#);
    text(svg, WIDTH - RIGHT + 8.0, bottom - (PANEL - 18.0) + 4.0, "start", &faint, "100 %");
    text(svg, WIDTH - RIGHT + 8.0, bottom - (PANEL - 18.0) / 2.0 + 4.0, "start", &faint, "50 %");
}

/// The largest bars by name, none over another.
fn names(svg: &mut String, bars: &[Bar], bottom: f64, scale: f64, of: &impl Fn(&Bar) -> f64) {
    let slot = slot(bars);
    let mut order: Vec<usize> = (0..bars.len()).filter(|&i| of(&bars[i]) > 0.0).collect();
    order.sort_by(|&a, &b| of(&bars[b]).total_cmp(&of(&bars[a])));
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for i in order {
        let name = shortened(&bars[i].name);
        let middle = LEFT + (i as f64 + 0.5) * slot;
        let half = name.chars().count() as f64 * 3.1;
        let middle = middle.clamp(LEFT + half, (WIDTH - RIGHT - half).max(LEFT + half));
        let free = taken.iter().all(|(from, to)| middle + half < *from || middle - half > *to);
        if free && taken.len() < NAMED {
            taken.push((middle - half, middle + half));
            let y = bottom - of(&bars[i]) * scale - 5.0;
            text(
                svg,
                middle,
                y,
                "middle",
                r##" font-size="10.5" paint-order="stroke" stroke="#ffffff" stroke-width="3""##,
                &name,
            );
        }
    }
}

/// The end of a long name, which tells most.
fn shortened(node: &str) -> String {
    const LONGEST: usize = 28;
    let length = node.chars().count();
    match length > LONGEST {
        true => format!("…{}", node.chars().skip(length - LONGEST + 1).collect::<String>()),
        false => node.to_owned(),
    }
}

/// A round step of which some four reach up to `largest`.
fn tick(largest: f64) -> f64 {
    if largest <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf((largest / 4.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    steps.into_iter().map(|s| s * power).find(|step| step * 4.0 >= largest).unwrap_or(power * 10.0)
}

/// `2.5M`, `100k`.
fn short(value: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (size, unit) = units.into_iter().find(|(size, _)| value >= *size).unwrap_or((1.0, ""));
    let digits = format!("{:.2}", value / size);
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, style: &str, content: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{style}>{}</text>"#,
        escape(content)
    );
}

/// Names come from third-party files.
fn escape(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

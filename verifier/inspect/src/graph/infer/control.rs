//! Nodes that hold graphs: If, Loop, Scan, SequenceMap.

use std::collections::HashSet;
use std::sync::Arc;

use emo_proto::tensor_proto::DataType;
use emo_proto::text::{label, path};
use emo_proto::{GraphProto, NodeProto, ValueInfoProto};

use super::walk::{Held, Scope, Visit, Walk, rule};
use crate::cost::Cost;
use crate::fact::{Fact, Kind};
use crate::ops::{Ctx, Row, Why};
use crate::sym::Expr;
use crate::typed::of_type;

/// Walks of a loop's body with what it carries joined from turn to turn, before all that still
/// changes is given up.
const MOST_TURNS: usize = 4;

/// Where formulas of two branches cannot be compared, they are at this size of every dimension.
const TYPICAL: i64 = 64;

impl<'a> Walk<'a, '_> {
    /// Visits a node that holds graphs; `None` for any other.
    pub(super) fn control(&mut self, node: &'a NodeProto, row: &Row, ctx: &Ctx) -> Option<Visit> {
        let visit = match node.op_type() {
            "If" => self.branches(node, ctx),
            "Loop" => self.repeat(node, ctx),
            "Scan" => self.scan(node, ctx),
            "SequenceMap" => self.map(node, ctx),
            "FlexAttention" => self.modified(node, row, ctx),
            "BeamSearch" | "GreedySearch" | "Sampling" | "WhisperBeamSearch" => self.generate(node, row, ctx),
            _ => return None,
        };
        Some(visit.unwrap_or_else(Visit::failed))
    }

    /// Walks a body with these facts for its inputs.
    fn inside(
        &mut self,
        node: &NodeProto,
        name: &str,
        graph: &'a GraphProto,
        inputs: &[Fact],
    ) -> Result<Vec<Fact>, Why> {
        if graph.input.len() != inputs.len() {
            let (expected, found) = (inputs.len(), graph.input.len());
            return Err(format!("expected a {name} of {expected} inputs, found {found}"));
        }
        let around = self.scope();
        let scope = Scope {
            values: graph
                .input
                .iter()
                .map(ValueInfoProto::name)
                .zip(inputs.iter().cloned().map(Arc::new))
                .collect(),
            absent: HashSet::new(),
            captures: true,
            opsets: around.opsets.clone(),
            arguments: around.arguments.clone(),
            path: path(&around.path, node, name).into(),
            multiplicity: around.multiplicity.clone(),
            id: 0,
            at: 0,
        };
        let outputs = graph.output.iter().map(ValueInfoProto::name);
        self.enter(scope, Held::Graph(graph), outputs)
    }

    /// Walks a body until what it carries from turn to turn is true of every turn. Its inputs are
    /// `before`, what it carries, `after`; its first outputs are what it carries on.
    ///
    /// Returns what it carries and the outputs of the last walk.
    fn settle(
        &mut self,
        node: &NodeProto,
        body: &'a GraphProto,
        [before, state, after]: [&[Fact]; 3],
    ) -> Result<(Vec<Fact>, Vec<Fact>), Why> {
        let reason = format!("it may change from turn to turn of {}", label(node));
        let (nodes, bodies) = (self.found.nodes.len(), self.found.bodies.len());
        let mut state = state.to_vec();
        for turn in 0.. {
            self.found.nodes.truncate(nodes);
            self.found.bodies.truncate(bodies);
            let outputs = self.inside(node, "body", body, &[before, &state, after].concat())?;
            if outputs.len() < state.len() {
                let (expected, found) = (state.len(), outputs.len());
                return Err(format!("expected a body of {expected} outputs at least, found {found}"));
            }
            let joined: Vec<Fact> = state.iter().zip(&outputs).map(|(a, b)| a.joined(b, &reason)).collect();
            if joined == state || turn > MOST_TURNS {
                return Ok((state, outputs));
            }
            let give_up = |(old, new): (&Fact, &Fact)| {
                let changes = old != new || turn == MOST_TURNS;
                if turn + 1 >= MOST_TURNS && changes { unknown(new, &reason) } else { new.clone() }
            };
            state = state.iter().zip(&joined).map(give_up).collect();
        }
        Err(reason)
    }

    /// Multiplies the nodes of a body that was walked, those from `start` on.
    fn multiply(&mut self, start: usize, turns: &Expr) {
        for facts in &mut self.found.nodes[start..] {
            facts.multiplicity = &facts.multiplicity * turns;
            facts.cost = Arc::new(facts.cost.times(turns));
        }
    }

    /// Both branches are walked. The one that a constant decides counts, or the only one that can
    /// run with these extents, else the dearer.
    fn branches(&mut self, node: &'a NodeProto, ctx: &Ctx) -> Result<Visit, Why> {
        let (then, otherwise) = (self.body(node, "then_branch")?, self.body(node, "else_branch")?);
        let start = self.found.nodes.len();
        let yes = self.inside(node, "then_branch", then, &[])?;
        let middle = self.found.nodes.len();
        let no = self.inside(node, "else_branch", otherwise, &[])?;
        if yes.len() != no.len() {
            return Err(format!(
                "expected branches of as many outputs, found {} and {}",
                yes.len(),
                no.len()
            ));
        }
        let decided = ctx.input(0)?.elements.as_deref().and_then(|e| e.first()?.number());
        let decided = decided.map(|n| (n != 0, None)).or_else(|| self.possible(start, middle));
        let certain = decided.is_some();
        let (taken, note) = decided.unwrap_or_else(|| self.dearer(start, middle));
        let spared = if taken { middle..self.found.nodes.len() } else { start..middle };
        for facts in &mut self.found.nodes[spared] {
            (facts.multiplicity, facts.cost) = (0.into(), Arc::default());
            // What never runs may be any nonsense and is counted; engines look at it all the same.
            if certain {
                let problem = facts.said.as_mut().and_then(|said| said.problem.take());
                let problem = problem.filter(|_| facts.impossible);
                self.found.dead.extend(problem.map(|why| (facts.node, why)));
                facts.impossible = false;
            }
        }
        let outputs = match certain {
            true => {
                if taken {
                    yes
                } else {
                    no
                }
            }
            false => {
                let name = label(node);
                let reason = format!("the branches of {name} differ");
                yes.iter().zip(&no).map(|(a, b)| Fact { source: None, ..a.joined(b, &reason) }).collect()
            }
        };
        Ok(Visit { note, ..Visit::free(outputs) })
    }

    /// Whether the first of two branches is the only one whose nodes agree with their operands, and
    /// what to say of it; `None` where both or none do.
    fn possible(&self, start: usize, middle: usize) -> Option<(bool, Option<String>)> {
        let (then, otherwise) = self.found.nodes[start..].split_at(middle - start);
        let fault = |nodes: &[super::NodeFacts]| {
            let impossible = nodes.iter().find(|facts| facts.impossible)?;
            Some(format!("{}: {}", impossible.place(), impossible.problem().unwrap_or_default()))
        };
        let (taken, name, why) = match (fault(then), fault(otherwise)) {
            (None, Some(why)) => (true, "then_branch", why),
            (Some(why), None) => (false, "else_branch", why),
            _ => return None,
        };
        Some((taken, Some(format!("counted is {name}, the other cannot run with these extents: {why}"))))
    }

    /// Whether the first of two branches costs more, and what to say of it.
    fn dearer(&self, start: usize, middle: usize) -> (bool, Option<String>) {
        let (then, otherwise) = self.found.nodes[start..].split_at(middle - start);
        let sum = |nodes: &[super::NodeFacts]| {
            nodes.iter().fold(Cost::default(), |mut sum, facts| {
                sum += &facts.cost;
                sum
            })
        };
        let (then, otherwise) = (sum(then), sum(otherwise));
        if then == otherwise {
            return (true, None);
        }
        let value = |cost: &Cost| cost.macs.with(&|_| Some(TYPICAL)).number();
        let (larger, how) = match (value(&then), value(&otherwise)) {
            // What cannot be counted must not get lost.
            (None, _) => (true, "which cannot be counted"),
            (_, None) => (false, "which cannot be counted"),
            (Some(a), Some(b)) if then.macs.number().is_some() && otherwise.macs.number().is_some() => {
                (a >= b, "the dearer one")
            }
            (Some(a), Some(b)) => (a >= b, "the dearer one where every dimension is 64"),
        };
        let name = if larger { "then_branch" } else { "else_branch" };
        (larger, Some(format!("one branch runs; counted is {name}, {how}")))
    }

    /// `M`, `cond`, what is carried → what is carried, what is collected.
    fn repeat(&mut self, node: &'a NodeProto, ctx: &Ctx) -> Result<Visit, Why> {
        let body = self.body(node, "body")?;
        let truth = || Fact::scalar(DataType::Bool).holding(Some(vec![1.into()]));
        let mut state = vec![ctx.optional(1).cloned().unwrap_or_else(truth)];
        for fact in ctx.inputs.get(2..).unwrap_or_default() {
            state.push(Fact::clone(fact.as_ref().ok_or("a carried value is missing")?));
        }
        let start = self.found.nodes.len();
        let turn = [Fact::scalar(DataType::Int64)];
        let (settled, outputs) = self.settle(node, body, [&turn, &state, &[]])?;
        let (turns, problem) = match turns(ctx, &settled[0], &outputs[0]) {
            Ok(turns) => (turns, None),
            Err(why) => (Expr::unknown(&why), Some(why)),
        };
        self.multiply(start, &turns);

        let (carried, collected) = outputs.split_at(state.len());
        let mut results = ends(&settled[1..], &carried[1..], &turns);
        results.extend(collected.iter().map(|fact| stacked(fact, 0, &turns)));
        let counted = self.found.nodes[start..].iter().all(|facts| facts.cost.reasons().is_empty());
        Ok(Visit { problem: problem.filter(|_| !counted), ..Visit::free(results) })
    }

    /// What is carried, what is cut into slices → what is carried, what is collected.
    fn scan(&mut self, node: &'a NodeProto, ctx: &Ctx) -> Result<Visit, Why> {
        let body = self.body(node, "body")?;
        // The first version works on batches, whose lengths are its first operand.
        let batched = ctx.opset < 9;
        let lead = usize::from(batched);
        let operands = ctx.inputs.get(lead..).unwrap_or_default();
        let sliced = usize::try_from(ctx.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
        let carried = operands.len().checked_sub(sliced).filter(|_| sliced > 0);
        let carried = carried.ok_or_else(|| format!("expected {sliced} operands to scan, found fewer"))?;
        let fact = |i: usize| match &operands[i] {
            Some(fact) => Ok(Fact::clone(fact)),
            None => Err(format!("operand {} is missing", i + lead)),
        };
        let axes = |name: &str| if batched { None } else { ctx.ints(name) };

        let mut batch = Expr::Number(1);
        let mut state = Vec::new();
        for i in 0..carried {
            let fact = fact(i)?;
            state.push(if batched { cut(&fact, 0)?.0 } else { Fact { source: None, ..fact } });
        }
        let (mut slices, mut turns) = (Vec::new(), None);
        for i in 0..sliced {
            let mut fact = fact(carried + i)?;
            if batched {
                (fact, batch) = cut(&fact, 0)?;
            }
            let axis = axes("scan_input_axes").and_then(|axes| axes.get(i)).copied().unwrap_or(0);
            let (slice, extent) = cut(&fact, axis)?;
            slices.push(slice);
            turns.get_or_insert(extent);
        }
        let turns = turns.unwrap_or_default();
        let start = self.found.nodes.len();
        let (settled, outputs) = self.settle(node, body, [&[], &state, &slices])?;
        self.multiply(start, &(&batch * &turns));

        let (carried, collected) = outputs.split_at(settled.len());
        let mut results = ends(&settled, carried, &turns);
        for (i, fact) in collected.iter().enumerate() {
            let axis = axes("scan_output_axes").and_then(|axes| axes.get(i)).copied().unwrap_or(0);
            let rank = fact.rank().unwrap_or(0);
            results.push(stacked(fact, Ctx::axis(axis, rank + 1)?, &turns));
        }
        if batched {
            results.iter_mut().for_each(|fact| *fact = stacked(fact, 0, &batch));
        }
        Ok(Visit::free(results))
    }

    /// An attention whose scores and probabilities, `[N, heads, queries, keys]`, bodies change.
    fn modified(&mut self, node: &'a NodeProto, row: &Row, ctx: &Ctx) -> Result<Visit, Why> {
        let visit = rule(row, ctx);
        let default = if ctx.dtype(0)? == DataType::Double { DataType::Double } else { DataType::Float };
        let dtype = ctx.dtype_of("softmax_precision")?.unwrap_or(default);
        let scores = ctx.shaped(dtype, || match (ctx.dims(0)?, ctx.dims(1)?) {
            ([n, heads, queries, _], [_, _, keys, _]) => {
                Ok([n, heads, queries, keys].map(Expr::clone).to_vec())
            }
            other => Err(format!("expected queries and keys of four axes, found {other:?}")),
        })?;
        for name in ["score_mod", "prob_mod"] {
            if ctx.attribute(name).is_some() {
                let body = self.body(node, name)?;
                self.inside(node, name, body, std::slice::from_ref(&scores))?;
            }
        }
        Ok(visit)
    }

    /// A search over tokens: an encoder that runs once, decoders as often as tokens are written. What
    /// the bodies take is the operator's own affair; their inputs declare it.
    fn generate(&mut self, node: &'a NodeProto, row: &Row, ctx: &Ctx) -> Result<Visit, Why> {
        let visit = rule(row, ctx);
        let why = visit.problem.clone().unwrap_or_default();
        for name in ["encoder", "init_decoder", "decoder"] {
            if ctx.attribute(name).is_none() {
                continue;
            }
            let body = self.body(node, name)?;
            let declared = |input: &ValueInfoProto| match &input.r#type {
                Some(r#type) => of_type(r#type, input.name()),
                None => Fact::unknown(DataType::Undefined, "the input declares no type"),
            };
            let inputs: Vec<Fact> = body.input.iter().map(declared).collect();
            let start = self.found.nodes.len();
            self.inside(node, name, body, &inputs)?;
            if name == "decoder" {
                self.multiply(start, &Expr::unknown(&why));
            }
        }
        Ok(visit)
    }

    /// A body for each item of a sequence.
    fn map(&mut self, node: &'a NodeProto, ctx: &Ctx) -> Result<Visit, Why> {
        let body = self.body(node, "body")?;
        let Kind::Sequence(sequence) = &ctx.input(0)?.kind else {
            return Err(format!("expected a sequence, found {}", ctx.input(0)?.describe()));
        };
        let item = |fact: &Option<Arc<Fact>>| match fact.as_deref() {
            Some(Fact { kind: Kind::Sequence(sequence), .. }) => Ok(sequence.item.clone()),
            Some(fact) => Ok(fact.clone()),
            None => Err("an operand is missing".to_owned()),
        };
        let inputs = ctx.inputs.iter().map(item).collect::<Result<Vec<_>, Why>>()?;
        let start = self.found.nodes.len();
        let outputs = self.inside(node, "body", body, &inputs)?;
        let length = sequence.items.as_ref().map(Vec::len);
        let why = format!("the length of {} is known only when the graph runs", node.input[0]);
        self.multiply(start, &length.map_or_else(|| Expr::unknown(&why), Expr::from));
        let counted = self.found.nodes[start..].iter().all(|facts| facts.cost.reasons().is_empty());
        let results = outputs.into_iter().map(|fact| {
            let fact = Fact { source: None, ..fact };
            let items = length.map(|length| vec![fact.clone(); length]);
            Fact::sequence(fact, items)
        });
        Ok(Visit { problem: (!counted).then_some(why), ..Visit::free(results.collect()) })
    }
}

/// How often a loop's body runs, given its condition before and after each turn.
fn turns(ctx: &Ctx, before: &Fact, after: &Fact) -> Result<Expr, Why> {
    let only = |fact: &Fact| fact.elements.as_deref().and_then(|e| e.first()).cloned();
    let runtime = |what: &str| format!("{what} of {} is known only when the graph runs", label(ctx.node));
    let most = match ctx.optional(0) {
        None => None,
        Some(limit) => {
            let limit = only(limit).filter(Expr::is_known);
            Some(limit.ok_or_else(|| runtime("the number of turns"))?.larger(&0.into()))
        }
    };
    let start = ctx.optional(1).map_or(Some(1.into()), only);
    match (start.and_then(|e| e.number()), only(before).and_then(|e| e.number()), only(after)) {
        (Some(0), _, _) => Ok(0.into()),
        (Some(_), Some(1), _) => most.ok_or_else(|| format!("{} never ends", label(ctx.node))),
        (Some(_), _, Some(after)) if after.is(0) => Ok(most.map_or(1.into(), |m| m.smaller(&1.into()))),
        _ => Err(runtime("the last turn")),
    }
}

/// What is carried out of the last turn. Without a turn it stays what it was, but is no optional
/// value where the body makes it another.
fn ends(before: &[Fact], after: &[Fact], turns: &Expr) -> Vec<Fact> {
    let runs = turns.number().is_some_and(|n| n > 0);
    let end = |(before, after): (&Fact, &Fact)| {
        let unwrapped = matches!(before.kind, Kind::Optional(_)) && !matches!(after.kind, Kind::Optional(_));
        let fact = if runs || unwrapped { after } else { before };
        Fact { source: None, ..fact.clone() }
    };
    before.iter().zip(after).map(end).collect()
}

/// What is left of it is its type.
fn unknown(fact: &Fact, reason: &str) -> Fact {
    Fact::unknown(fact.dtype, reason)
}

/// The slices of a tensor along an axis, and how many there are.
fn cut(fact: &Fact, axis: i64) -> Result<(Fact, Expr), Why> {
    match &fact.dims {
        Ok(dims) => {
            let mut dims = dims.clone();
            let extent = dims.remove(Ctx::axis(axis, dims.len())?);
            Ok((Fact::new(fact.dtype, dims), extent))
        }
        Err(reason) => Ok((Fact::unknown(fact.dtype, reason), Expr::unknown(reason))),
    }
}

/// Tensors of this fact along a new axis.
fn stacked(fact: &Fact, axis: usize, turns: &Expr) -> Fact {
    match &fact.dims {
        Ok(dims) => {
            let mut dims = dims.clone();
            dims.insert(axis.min(dims.len()), turns.clone());
            Fact::new(fact.dtype, dims)
        }
        Err(reason) => Fact::unknown(fact.dtype, reason),
    }
}

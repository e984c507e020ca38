//! P1, P12: prints the policy: every state times every event, as a table and as a diagram. A
//! changed transition changes these snapshots, so a reviewer sees it.
//!
//! States are abstract here: they include neither the remaining time nor the reason of the stop.

use crate::common::{HOOK_RESULTS, Run, events};
use core::{cmp::Reverse, fmt::Write as _, time::Duration};
use lameduck::lifecycle::{
    Action, Event, HookBudget, HookIndex, HookResult, Moment, Outcome, Phase, Plan, StopReason,
};
use std::collections::{BTreeMap, VecDeque};

/// The triggers that lead from one state to the same result.
struct Row {
    triggers: Vec<Trigger>,
    outcome: Option<Outcome>,
    to: String,
    actions: String,
}

#[derive(Clone, Copy)]
enum Trigger {
    Event(Event),
    Timeout,
}

struct Section {
    from: String,
    waits: String,
    rows: Vec<Row>,
}

/// Returns all states of a run with this many hooks, in the order of phases.
fn sections(plan: Plan, hooks: usize) -> Vec<Section> {
    let (begin, _) = Run::begin(plan, &vec![HookBudget::Shared; hooks]);
    let mut found = vec![begin.place()];
    let mut queue = VecDeque::from([begin]);
    let mut sections = Vec::new();
    while let Some(life) = queue.pop_front() {
        let (section, next) = section(&life, hooks);
        sections.push(section);
        for life in next {
            if !found.contains(&life.place()) {
                found.push(life.place());
                queue.push_back(life);
            }
        }
    }
    // A run can end before it serves, so the order of discovery is not that of a long run. Sort by
    // phase, the stop hooks last first.
    sections.sort_by_cached_key(|section| rank(&section.from));
    sections
}

/// The rank of a place in the longest run.
fn rank(place: &str) -> (usize, Reverse<String>) {
    let phase = Phase::ALL
        .iter()
        .position(|phase| place.starts_with(phase.name()))
        .expect("a place begins with its phase");
    let step =
        place.strip_prefix(Phase::CleaningUp.name()).and_then(|step| step.strip_prefix("/hook "));
    (phase, Reverse(step.unwrap_or_default().into()))
}

fn section(life: &Run, hooks: usize) -> (Section, Vec<Run>) {
    let mut rows: Vec<Row> = Vec::new();
    let mut nexts = Vec::new();
    let mut add = |trigger, outcome, next: Run, actions: &[Action]| {
        let (to, actions) = (next.place(), list(actions, next.now));
        match rows
            .iter_mut()
            .find(|row| row.outcome == outcome && row.to == to && row.actions == actions)
        {
            Some(row) => row.triggers.push(trigger),
            None => rows.push(Row { triggers: vec![trigger], outcome, to, actions }),
        }
        nexts.push(next);
    };
    for event in events(hooks) {
        let mut next = life.clone();
        let (outcome, actions) = next.try_tell(event);
        add(Trigger::Event(event), Some(outcome), next, &actions);
    }
    let waits = match life.machine.poll_timeout() {
        None => "waits for no time".into(),
        Some((_, timer)) => {
            let mut next = life.clone();
            let actions = next.time_out();
            add(Trigger::Timeout, None, next, &actions);
            format!("waits at most {:?}: {timer:?}", life.time_left())
        }
    };
    // Applied events first, ignored ones last.
    rows.sort_by_key(|row| row.outcome == Some(Outcome::Ignored));
    (Section { from: life.place(), waits, rows }, nexts)
}

fn list(actions: &[Action], now: Moment) -> String {
    let mut list = Vec::new();
    for action in actions {
        list.push(match action {
            Action::ArmWatchdog(at) => format!("ArmWatchdog(in {:?})", at.since(now)),
            Action::RunStartHook(HookIndex(hook)) => format!("RunStartHook({hook})"),
            Action::CancelStartHook(HookIndex(hook)) => format!("CancelStartHook({hook})"),
            Action::DropStartHook(HookIndex(hook)) => format!("DropStartHook({hook})"),
            Action::RunStopHook(HookIndex(hook)) => format!("RunStopHook({hook})"),
            Action::GiveUpStopHook(HookIndex(hook), why) => {
                format!("GiveUpStopHook({hook}, {why:?})")
            }
            Action::Publish(_)
            | Action::Listen
            | Action::Abandon
            | Action::Quiesce
            | Action::CancelRequests
            | Action::AbortRequests
            | Action::CutRequests
            | Action::CancelRoot
            | Action::Abort
            | Action::Cut
            | Action::ReleaseWorkers
            | Action::CloseInternal
            | Action::CutInternal
            | Action::Exit => format!("{action:?}"),
        });
    }
    list.join(", ")
}

/// Names the triggers. All results of a hook become one name where they occur together.
fn triggers(triggers: &[Trigger]) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut rest = triggers;
    while let [first, tail @ ..] = rest {
        if let Trigger::Event(
            Event::StartHookEnded(hook, HookResult::Done)
            | Event::StopHookEnded(hook, HookResult::Done),
        ) = first
            && rest.len() >= HOOK_RESULTS.len()
        {
            let half = if matches!(first, Trigger::Event(Event::StartHookEnded(..))) {
                "start"
            } else {
                "stop"
            };
            names.push(format!("{half} hook {} ended", hook.0));
            rest = &rest[HOOK_RESULTS.len()..];
        } else {
            names.push(name(*first));
            rest = tail;
        }
    }
    names.join(", ")
}

fn name(trigger: Trigger) -> String {
    let result = |result| match result {
        HookResult::Done => "done",
        HookResult::Failed => "failed",
        HookResult::BadSetting => "failed by a setting",
        HookResult::Panicked => "panicked",
    };
    match trigger {
        Trigger::Timeout => "timeout".into(),
        Trigger::Event(Event::StartHookEnded(hook, end)) => {
            format!("start hook {} {}", hook.0, result(end))
        }
        Trigger::Event(Event::StopHookEnded(hook, end)) => {
            format!("stop hook {} {}", hook.0, result(end))
        }
        Trigger::Event(Event::StartHookCancelled(hook)) => {
            format!("start hook {} cancelled", hook.0)
        }
        Trigger::Event(Event::WorkersReleased) => "workers released".into(),
        Trigger::Event(Event::Listening) => "listening".into(),
        Trigger::Event(Event::ListenFailed) => "listen failed".into(),
        Trigger::Event(Event::StopRequested(StopReason::Signal(signal))) => signal.name().into(),
        Trigger::Event(Event::StopRequested(reason)) => reason.to_string(),
        Trigger::Event(Event::MainClosed) => "main empty".into(),
        Trigger::Event(Event::InternalClosed) => "internal closed".into(),
    }
}

fn table(plan: Plan, hooks: usize) -> String {
    let (_, first) = Run::begin(plan, &vec![HookBudget::Shared; hooks]);
    let mut text = format!("begin\n  yields   {}\n", list(&first, Moment::EPOCH));
    for Section { from, waits, rows } in sections(plan, hooks) {
        let _ = write!(text, "\n{from}\n  {waits}\n");
        for row in rows {
            let outcome = match row.outcome {
                Some(Outcome::Applied) => "applied ",
                Some(Outcome::Ignored) => "ignored ",
                None => "in time ",
            };
            let _ = writeln!(text, "  {outcome} {}", triggers(&row.triggers));
            if row.outcome != Some(Outcome::Ignored) {
                let stays = if row.to == from { " (stays)" } else { "" };
                let _ = writeln!(text, "           → {}{stays}", row.to);
                let _ = writeln!(
                    text,
                    "           yields {}",
                    if row.actions.is_empty() { "nothing" } else { &row.actions }
                );
            }
        }
    }
    text
}

fn diagram(hooks: usize) -> String {
    let sections = sections(Plan::default(), hooks);
    let mut text = String::from("stateDiagram-v2\n");
    for Section { from, .. } in &sections {
        let _ = writeln!(text, "    state \"{from}\" as {}", id(from));
    }
    let _ = writeln!(text, "    [*] --> {}", id(&sections[0].from));
    for Section { from, rows, .. } in &sections {
        // Several rows may lead to the same state with different actions. Draw one arrow for them.
        let mut arrows: BTreeMap<usize, Vec<Trigger>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.to != *from) {
            let to = sections
                .iter()
                .position(|section| section.from == row.to)
                .expect("every state has a section");
            arrows.entry(to).or_default().extend(&row.triggers);
        }
        for (to, by) in arrows {
            let _ = writeln!(
                text,
                "    {} --> {}: {}",
                id(from),
                id(&sections[to].from),
                triggers(&by)
            );
        }
    }
    let _ = writeln!(text, "    {} --> [*]", id(&sections[sections.len() - 1].from));
    text
}

fn id(place: &str) -> String {
    place.replace(['/', ' '], "_")
}

#[test]
fn the_table_of_all_states_and_events_is_reviewed() {
    insta::assert_snapshot!("table", table(Plan::default(), 2));
}

/// 2 s more than the drain: ordinary requests are cut in Cancelling; 10 s more: in Draining.
#[test]
fn the_table_of_a_plan_with_streams_is_reviewed() {
    for seconds in [12, 20] {
        let plan = Plan::default().streams(Duration::from_secs(seconds));
        let table = table(plan, 0);
        let from = table.find("\ndraining").expect("it drains");
        let to = table.find("\ncleaning_up").expect("it cleans up");
        insta::assert_snapshot!(format!("streams_{seconds}s"), &table[from..to]);
    }
}

#[test]
fn the_diagram_of_all_states_is_reviewed() {
    insta::assert_snapshot!("diagram", diagram(2));
}

#[test]
fn an_ignored_event_changes_no_state_and_returns_no_action() {
    for Section { from, rows, .. } in sections(Plan::default().streams(Duration::from_secs(20)), 3)
    {
        for row in rows.iter().filter(|row| row.outcome == Some(Outcome::Ignored)) {
            assert_eq!((&row.to, row.actions.as_str()), (&from, ""), "{}", triggers(&row.triggers));
        }
    }
}

#[test]
fn the_longest_run_lasts_as_long_as_the_plan() {
    let mut life = Run::serving(Plan::default(), &[HookBudget::Shared; 2]);
    life.tell(Event::StopRequested(StopReason::Requested));
    let began = life.now;
    while life.machine.poll_timeout().is_some() {
        life.time_out();
    }
    assert_eq!(
        life.now.since(began),
        Duration::from_secs(24),
        "P7: the worst case is not what the table adds up to"
    );
}

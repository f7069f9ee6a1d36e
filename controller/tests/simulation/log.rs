//! The operators' own log. An error in it is a defect that an operator noticed itself; everything
//! else is a part of the trace when that is to be read.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::trace::Actor;
use crate::world::World;

/// Listens to what is logged on this thread.
pub(crate) struct Log {
    world: World,
    level: Level,
}

impl Log {
    pub(crate) fn listen(world: &World, everything: bool) -> DefaultGuard {
        tracing::subscriber::set_default(Self {
            world: world.clone(),
            level: if everything {
                Level::DEBUG
            } else {
                Level::ERROR
            },
        })
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= self.level
            && metadata.target().starts_with("agent_sandbox")
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        if *event.metadata().level() == Level::ERROR {
            self.world.violate("operators do not fail", text.0);
        } else {
            let target = event.metadata().target().rsplit("::").next();
            let who = format!("log of {}", target.unwrap_or_default());
            self.world.note(Actor::World, who, text.0);
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?} ").expect("text takes text");
        } else {
            write!(self.0, "{}={value:?} ", field.name()).expect("text takes text");
        }
    }
}

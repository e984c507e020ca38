//! `--drill=FAULT`: adds a fault, to practise the exit codes.

use crate::args::Fault;
use lameduck::{BackgroundTask, Builder, Hook};

/// Adds a task or a hook that fails.
pub(crate) fn inject(builder: Builder, fault: Fault) -> Builder {
    match fault {
        Fault::None | Fault::Exit => builder,
        Fault::Task => builder.background_task(BackgroundTask::new("drill", |_| async {
            Err::<(), _>("requested by --drill=task")
        })),
        Fault::Hook => builder
            .hook(Hook::on_stop("drill", || async { Err::<(), _>("requested by --drill=hook") })),
    }
}

/// Runs last before the exit; with [`Fault::Exit`] it never returns.
pub(crate) fn at_exit(fault: Fault) {
    if fault == Fault::Exit {
        loop {
            std::thread::park();
        }
    }
}

//! Whether a task that reads a request body after the response has ended waits for the client.

/// The last wait of the task, and the bytes that the connection had read when it was first seen.
#[derive(Debug, Default)]
pub(super) struct LateBody(Option<(u32, u64)>);

impl LateBody {
    /// Whether only the client can go on. If bytes have arrived since this `wait` began, the task
    /// was woken and reads no more: it may have dropped the future that waited.
    pub(super) fn awaits_client(&mut self, wait: u32, read: u64) -> bool {
        let (known, read_before) = self.0.get_or_insert((wait, read));
        if *known != wait {
            (*known, *read_before) = (wait, read);
        }
        *read_before == read
    }
}

#[cfg(test)]
mod tests {
    use super::LateBody;

    // A task had stopped to wait for the next part of a body, which had arrived. Its client got the
    // blame: the connection was closed, and a body timeout was counted (P13).
    #[test]
    fn a_client_is_not_awaited_if_bytes_arrived_that_the_task_does_not_read() {
        let mut body = LateBody::default();
        assert!(body.awaits_client(1, 100));
        assert!(body.awaits_client(1, 100), "nothing has arrived");
        assert!(!body.awaits_client(1, 150));
        assert!(!body.awaits_client(1, 150), "the task does not read it");
        assert!(body.awaits_client(2, 150), "it has read that, and waits again");
    }
}

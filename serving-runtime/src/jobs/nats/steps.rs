//! The steps of jobs and callbacks. Each reads, decides by [`Doc`], writes if nothing has changed since, and begins again if something has.

use std::time::Instant;

use super::doc::Doc;
use super::link::{Delivery, Link};
use super::store::{self, Commit, Kept, Write};
use super::tally::Tally;
use super::{
    Again, BESIDES, Called, Claimed, DEAD_LETTERS_MS, Due, End, Enqueued, Inner, Job, Lag, Lease, Priority, QueueError,
    Start, Status, TRIES, contended, lease, now_millis, unexpected,
};

const ACK: &str = "+ACK";

/// What a key of idempotency leads to.
enum Key {
    /// There is none, or its job is forgotten; the number of what is kept under it.
    Free(u64),
    /// The job that has it, and the fingerprint of its content.
    Taken(String, String),
}

/// Which delivery a token is of: the numbers in it of the message and of its deliveries.
fn holder(token: &str) -> &str {
    token.strip_prefix("$JS.ACK.").unwrap_or(token)
}

/// The number of an entry's message.
fn sequence(lease: &Lease) -> u64 {
    lease.entry.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn nak(delay: std::time::Duration) -> String {
    if delay.is_zero() { "-NAK".into() } else { format!("-NAK {{\"delay\": {}}}", delay.as_nanos()) }
}

impl Inner {
    /// A job as it is kept, and the number of its message; 0 when there is none.
    pub(super) async fn doc(&self, link: &Link, id: &str) -> Result<(u64, Option<Doc>), QueueError> {
        Ok(match store::last(link, &self.names.job(id)).await? {
            Some(kept) => (kept.sequence, Doc::read(&kept)),
            None => (0, None),
        })
    }

    fn keep(&self, id: &str, doc: &Doc, expected: u64) -> Write {
        doc.write(self.names.job(id), expected, now_millis())
    }

    async fn key(&self, link: &Link, digest: &str) -> Result<Key, QueueError> {
        let Some(kept) = store::last(link, &self.names.idem(digest)).await? else { return Ok(Key::Free(0)) };
        let (id, print) = owner(&kept);
        if self.doc(link, &id).await?.0 > 0 { Ok(Key::Taken(id, print)) } else { Ok(Key::Free(kept.sequence)) }
    }

    pub(super) async fn add(&self, link: &Link, job: &Job, max_jobs: u64) -> Result<Enqueued, QueueError> {
        let payload = serde_json::to_vec(job).map_err(unexpected)?;
        let (most, size) = (link.client.max_payload().saturating_sub(BESIDES), payload.len());
        if size > most {
            return Err(QueueError::TooLarge(size, most));
        }
        let bytes = i64::try_from(size).unwrap_or(i64::MAX);
        let digest = job.key_digest();
        for _ in 0..TRIES {
            let mut writes = Vec::new();
            if !digest.is_empty() {
                match self.key(link, &digest).await? {
                    Key::Taken(id, print) if print == job.fingerprint() => return Ok(Enqueued::Duplicate(id)),
                    Key::Taken(id, _) => return Ok(Enqueued::Conflict(id)),
                    Key::Free(expected) => writes.push(self.own(&digest, &job.id, job, expected)),
                }
            }
            if let Some(entries) = self.full(link, size, max_jobs).await? {
                self.tally.commit(link, &self.names, Vec::new(), &[("refused", 1)]).await?;
                return Ok(Enqueued::Full(entries));
            }
            let mut doc = Doc::queued(job, job.priority, now_millis());
            doc.set("bytes", size);
            writes.push(self.keep(&job.id, &doc, 0));
            writes.push(Write::new(self.names.entry(job.priority, &job.id), payload.clone()).expect(0));
            let counts = [("enqueued", 1), ("bytes", bytes)];
            if self.tally.commit(link, &self.names, writes, &counts).await? != Commit::Conflict {
                return Ok(Enqueued::Accepted);
            }
        }
        contended()
    }

    /// How many jobs there are, when there is no room for another of `size` bytes.
    async fn full(&self, link: &Link, size: usize, max_jobs: u64) -> Result<Option<u64>, QueueError> {
        let (size, bounds) = (size as u64, (max_jobs, self.options.max_bytes));
        if self.room.take(size, bounds, Instant::now()) {
            return Ok(None);
        }
        let asked = Instant::now();
        let (infos, sums) = futures::future::try_join(link.infos(), Tally::sums(link, &self.names)).await?;
        let entries = infos.iter().take(Priority::ALL.len()).map(|i| i.num_pending + i.num_ack_pending as u64).sum();
        let bytes = sums.get("bytes").map_or(0, |bytes| u64::try_from(*bytes).unwrap_or(0));
        self.room.saw(entries, bytes, asked);
        // However long that took: it is the newest that there is.
        Ok((!self.room.take(size, bounds, asked)).then_some(entries))
    }

    /// Makes a key lead to a job.
    fn own(&self, digest: &str, id: &str, job: &Job, expected: u64) -> Write {
        let text = format!("{id} {}", job.fingerprint());
        Write::new(self.names.idem(digest), text)
            .expect(expected)
            .forget_after(self.options.kept_for(job.callback_url.is_some()))
    }

    /// A delivery as a worker gets it. What the server handed out before may never have been begun; the job itself knows.
    pub(super) async fn claimed(&self, link: &Link, priority: Priority, delivery: Delivery) -> Claimed {
        let lease = lease(priority, &delivery);
        let deliveries = match delivery.delivered {
            0 | 1 => 1,
            again => match self.doc(link, &lease.id).await {
                Ok((_, doc)) => doc.map_or(1, |doc| doc.deliveries()),
                Err(_) => u32::try_from(again).unwrap_or(u32::MAX),
            },
        };
        Claimed { lease, payload: delivery.payload, deliveries }
    }

    pub(super) async fn begin(
        &self,
        link: &Link,
        lease: &Lease,
        job: &Job,
        deliveries: u32,
    ) -> Result<Start, QueueError> {
        for _ in 0..TRIES {
            let (expected, known) = self.doc(link, &lease.id).await?;
            let (mut writes, mut counts) = (Vec::new(), Vec::new());
            let written = lease.written();
            let mut doc = match known {
                Some(doc) if doc.status().ended() => {
                    store::settle(&link.client, &lease.token, ACK).await?;
                    return Ok(Start::Duplicate);
                }
                Some(doc) if !self.is_of(link, &doc, lease).await? => return self.drop_twin(link, lease).await,
                Some(doc) => doc,
                // Written by a producer of its own: it is registered when it is first seen.
                None => {
                    let digest = job.key_digest();
                    if !digest.is_empty() {
                        match self.key(link, &digest).await? {
                            Key::Taken(..) => return self.drop_twin(link, lease).await,
                            Key::Free(expected) => writes.push(self.own(&digest, &lease.id, job, expected)),
                        }
                    }
                    counts.push(("enqueued", 1));
                    Doc::queued(job, lease.priority, written)
                }
            };
            let time = now_millis();
            // A server that lost its consumers' state counts from one again.
            let start = if deliveries.max(doc.deliveries()) > self.options.max_deliveries {
                Start::Dead
            } else if job.expires_at(written).is_some_and(|at| time > at) {
                Start::Expired
            } else {
                doc.begin(holder(&lease.token), sequence(lease), time);
                Start::Run
            };
            if start != Start::Run && counts.is_empty() {
                return Ok(start);
            }
            writes.push(self.keep(&lease.id, &doc, expected));
            let done = match counts.is_empty() {
                true => store::commit(&link.client, writes).await?,
                false => self.tally.commit(link, &self.names, writes, &counts).await?,
            };
            if done != Commit::Conflict {
                return Ok(start);
            }
        }
        contended()
    }

    /// Whether an entry is the job's own. A producer may have written two of one id; or one again on the same subject, which takes the first
    /// one's place.
    async fn is_of(&self, link: &Link, doc: &Doc, lease: &Lease) -> Result<bool, QueueError> {
        match doc.number("entry") {
            None => Ok(doc.text("priority") == lease.priority.name()),
            Some(own) if own == sequence(lease) => Ok(true),
            Some(own) => Ok(!store::exists(link, own).await?),
        }
    }

    /// An entry of a job that has another one.
    async fn drop_twin(&self, link: &Link, lease: &Lease) -> Result<Start, QueueError> {
        self.tally.count(link, &self.names, &[("enqueued", 1), ("duplicate", 1)]).await?;
        store::settle(&link.client, &lease.token, ACK).await?;
        Ok(Start::Duplicate)
    }

    pub(super) async fn end(&self, link: &Link, lease: &Lease, end: &End) -> Result<bool, QueueError> {
        for _ in 0..TRIES {
            let (expected, known) = self.doc(link, &lease.id).await?;
            let mut counts = vec![(end.status.name(), 1)];
            let mut doc = match known {
                // The first result stands.
                Some(doc) if doc.status().ended() => {
                    store::settle(&link.client, &lease.token, ACK).await?;
                    return Ok(false);
                }
                Some(doc) => doc,
                // Its payload could not be read, so that it never began.
                None => {
                    counts.push(("enqueued", 1));
                    let mut doc = Doc::default();
                    doc.set("priority", lease.priority.name());
                    doc.set("created_at", lease.written());
                    doc.set("attempts", 0);
                    doc
                }
            };
            counts.push(("bytes", -doc.bytes()));
            let ttl = self.options.kept_for(end.callback_url.is_some());
            doc.end(end, now_millis(), ttl);
            let mut writes = self.refreshed_key(link, lease, &doc, ttl).await?;
            writes.push(self.keep(&lease.id, &doc, expected));
            if end.callback_url.is_some() {
                counts.push(("callbacks", 1));
                writes.push(Write::new(self.names.call(&lease.id), ""));
            }
            if end.status == Status::Dead {
                let letter = Write::new(self.names.dead(&lease.id), end.payload.clone());
                writes.push(letter.header("Slipway-Error", &one_line(&end.error)).forget_after(DEAD_LETTERS_MS));
            }
            if self.tally.commit(link, &self.names, writes, &counts).await? != Commit::Conflict {
                // The end is kept. If this fails, the entry is handed out once more, and dropped then.
                let _ = store::settle(&link.client, &lease.token, ACK).await;
                return Ok(true);
            }
        }
        contended()
    }

    /// Lets a key of idempotency live as long as its job.
    async fn refreshed_key(&self, link: &Link, lease: &Lease, doc: &Doc, ttl: u64) -> Result<Vec<Write>, QueueError> {
        let digest = doc.text("idem");
        if digest.is_empty() {
            return Ok(Vec::new());
        }
        let subject = self.names.idem(digest);
        let kept = store::last(link, &subject).await?.filter(|kept| owner(kept).0 == lease.id);
        let fresh = kept.map(|kept| Write::new(subject, kept.payload).expect(kept.sequence).forget_after(ttl));
        Ok(fresh.into_iter().collect())
    }

    pub(super) async fn give_back(&self, link: &Link, lease: &Lease, again: &Again) -> Result<bool, QueueError> {
        for _ in 0..TRIES {
            let (expected, doc) = self.doc(link, &lease.id).await?;
            match doc {
                Some(mut doc) if doc.held_by(holder(&lease.token)) => {
                    doc.give_back(&again.error, again.counts);
                    let writes = vec![self.keep(&lease.id, &doc, expected)];
                    if store::commit(&link.client, writes).await? == Commit::Conflict {
                        continue;
                    }
                }
                // Another delivery runs it, or it has ended.
                Some(doc) if doc.status() != Status::Queued => return Ok(false),
                // It was taken, and never begun.
                _ => {}
            }
            store::settle(&link.client, &lease.token, &nak(again.delay)).await?;
            return Ok(true);
        }
        contended()
    }

    pub(super) async fn withdraw(&self, link: &Link, id: &str) -> Result<Option<Status>, QueueError> {
        for _ in 0..TRIES {
            let (expected, doc) = self.doc(link, id).await?;
            let Some(mut doc) = doc else { return Ok(None) };
            if doc.status() != Status::Queued {
                return Ok(Some(doc.status()));
            }
            let (bytes, ttl) = (doc.bytes(), self.options.kept_for(false));
            let priority = doc.text("priority").to_owned();
            let end = End::without_result(Status::Cancelled, String::new(), &[]);
            doc.end(&end, now_millis(), ttl);
            let writes = vec![self.keep(id, &doc, expected)];
            let counts = [("cancelled", 1), ("bytes", -bytes)];
            if self.tally.commit(link, &self.names, writes, &counts).await? == Commit::Conflict {
                continue;
            }
            // If this fails, the entry is handed out once more, and dropped then.
            if let Some(priority) = Priority::parse(&priority)
                && let Ok(Some(entry)) = store::last(link, &self.names.entry(priority, id)).await
            {
                let _ = link.stream.delete_message(entry.sequence).await;
            }
            return Ok(Some(Status::Queued));
        }
        contended()
    }

    pub(super) async fn measure(&self, link: &Link) -> Result<Lag, QueueError> {
        let entries = self.names.every_entry();
        let (infos, sums, oldest) = futures::future::try_join3(
            link.infos(),
            Tally::sums(link, &self.names),
            store::first_written(link, &entries, 1),
        )
        .await?;
        let (work, calls) = infos.split_at(Priority::ALL.len().min(infos.len()));
        let (mut callbacks, mut late) = (0, 0);
        if let Some(calls) = calls.first() {
            callbacks = calls.num_pending + calls.num_ack_pending as u64;
            if calls.num_pending > 0 {
                let next = calls.delivered.stream_sequence + 1;
                let written = store::first_written(link, &self.names.calls(), next).await?;
                late = written.map_or(0, |at| now_millis().saturating_sub(at));
            }
        }
        Ok(Lag {
            waiting: work.iter().map(|info| info.num_pending).sum(),
            taken: work.iter().map(|info| info.num_ack_pending as u64).sum(),
            oldest: oldest.map_or(0, |at| now_millis().saturating_sub(at)),
            callbacks,
            callbacks_late: late,
            totals: sums.into_iter().filter_map(|(name, n)| Some((name, u64::try_from(n).ok()?))).collect(),
        })
    }

    /// A callback that was handed out, if it is still to be made.
    pub(super) async fn due(&self, link: &Link, delivery: Delivery) -> Result<Option<Due>, QueueError> {
        let id = delivery.name;
        for _ in 0..TRIES {
            let (expected, doc) = self.doc(link, &id).await?;
            let Some(mut doc) = doc.filter(Doc::to_call) else {
                if expected == 0 {
                    // The result is forgotten already: there is nothing left to tell.
                    self.tally.count(link, &self.names, &[("callbacks_dead", 1)]).await?;
                }
                store::settle(&link.client, &delivery.token, ACK).await?;
                return Ok(None);
            };
            let time = now_millis();
            doc.call(time);
            if store::commit(&link.client, vec![self.keep(&id, &doc, expected)]).await? != Commit::Conflict {
                let age = time.saturating_sub(doc.number("callback_first_at").unwrap_or(time));
                return Ok(Some(Due { id, view: doc.view(), age, token: delivery.token }));
            }
        }
        contended()
    }

    pub(super) async fn settle_call(&self, link: &Link, due: &Due, what: &Called) -> Result<bool, QueueError> {
        let attempt = due.view.number("callback_attempts").unwrap_or(1);
        for _ in 0..TRIES {
            let (expected, doc) = self.doc(link, &due.id).await?;
            let Some(mut doc) = doc else { return Ok(false) };
            if !doc.called(attempt, what, now_millis()) {
                return Ok(false);
            }
            let mut writes = vec![self.keep(&due.id, &doc, expected)];
            let (count, how) = match what {
                Called::Delivered => (Some("callbacks_delivered"), ACK.to_owned()),
                Called::Dead(_) => (Some("callbacks_dead"), ACK.to_owned()),
                Called::Retry(delay, _) => (None, nak(*delay)),
            };
            if let Called::Dead(error) = what {
                let letter = serde_json::json!({"id": due.id, "url": doc.text("callback_url"), "error": error});
                let letter = Write::new(self.names.undelivered(&due.id), letter.to_string());
                writes.push(letter.forget_after(DEAD_LETTERS_MS));
            }
            let done = match count {
                Some(count) => self.tally.commit(link, &self.names, writes, &[(count, 1)]).await?,
                None => store::commit(&link.client, writes).await?,
            };
            if done != Commit::Conflict {
                store::settle(&link.client, &due.token, &how).await?;
                return Ok(true);
            }
        }
        contended()
    }
}

/// The job of a key, and its fingerprint.
fn owner(kept: &Kept) -> (String, String) {
    let text = String::from_utf8_lossy(&kept.payload);
    let (id, print) = text.split_once(' ').unwrap_or_default();
    (id.to_owned(), print.to_owned())
}

/// A text that may stand in a header.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

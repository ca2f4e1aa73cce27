//! Webhooks: receivers elsewhere are told what happens to documents, at least once.
//!
//! Nothing is queued. A webhook is a place in the store's feed, and a row per document with what it was told of it. What changed behind that place is posted, a document at a time and with the heads
//! that it has by then; then the place is moved, and what did not arrive is noted with it, in one transaction. So what is told was durable before, what was told and not noted when the process
//! ended is told again, and what was not told is found again. While a post about a document is under way there is no other one about it.

mod post;
mod sign;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use bytes::Bytes;
use futures::stream::{StreamExt, iter};
use highwater_core::{ChangeHash, DocumentId};
use highwater_storage::{Deliveries, Delivery, DeliveryState, DocumentEntry, StoreError};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::envelope::hashes;
use crate::events::Changed;
use crate::hub::{Hub, draining};
use crate::limits::{
    WEBHOOK_DEAD_LISTED_MAX, WEBHOOK_ERROR_BYTES_MAX, WEBHOOK_PAGE, WEBHOOK_POSTS_AT_ONCE, WEBHOOK_WAIT_MAX,
    WEBHOOK_WAIT_WHOLE_MAX,
};
use post::{Failed, Poster};
pub use sign::Secret;

impl Webhook {
    /// Checks the address.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn new(name: &str, url: &str, secret: Secret) -> Result<Self, String> {
        let url: Uri = url.parse().map_err(|_| "its url is none".to_owned())?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err("its url begins with http:// or https://".to_owned());
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let error =
                "its url has a user in it, who would not be sent: a receiver knows a post by its signature";
            return Err(error.to_owned());
        }
        Ok(Self { name: name.to_owned(), url, secret })
    }
}

/// A receiver that is told what happens to documents.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// By which the server knows how far it has got. Under another name it is another webhook.
    pub name: String,
    /// Where to post; `http` or `https`.
    url: Uri,
    /// With which posts are signed.
    secret: Secret,
}

/// How webhooks are told.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// To whom.
    pub hooks: Vec<Webhook>,
    /// How long a post may take.
    pub timeout: Duration,
    /// The pause after a first failure; it doubles with each one more, up to an hour.
    pub retry_after: Duration,
    /// After so many failures in a row nothing is tried any more, until somebody says so or the document changes.
    pub attempts_max: u32,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            hooks: Vec::new(),
            timeout: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
            attempts_max: 16,
        }
    }
}

/// How a webhook stands.
#[derive(Debug, Clone)]
pub(crate) struct HookState {
    pub(crate) name: String,
    /// Without what may be secret in it.
    pub(crate) url: String,
    /// All that happened up to this number in the feed was told, or is waiting or dead.
    pub(crate) cursor: u64,
    /// The number of the last change that there is.
    pub(crate) last: u64,
    /// Some of those that wait, at most [`WEBHOOK_DEAD_LISTED_MAX`]; the same for the next.
    pub(crate) waiting: Vec<Delivery>,
    pub(crate) dead: Vec<Delivery>,
}

/// Asks a webhook to try again what is dead; answered with how many there were.
type Retry = oneshot::Sender<usize>;

/// The webhooks of a server.
#[derive(Default)]
pub(crate) struct Webhooks {
    hooks: Vec<(Webhook, mpsc::Sender<Retry>)>,
}

/// A webhook that is to be started.
pub(crate) struct Start {
    hook: Webhook,
    poster: Poster,
    retries: mpsc::Receiver<Retry>,
}

impl Webhooks {
    /// All that are configured, and what it takes to start them.
    pub(crate) fn new(config: &WebhookConfig) -> Result<(Self, Vec<Start>), String> {
        if config.hooks.is_empty() {
            return Ok((Self::default(), Vec::new()));
        }
        let poster = Poster::new(config.timeout)?;
        let mut starts = Vec::new();
        let mut hooks = Vec::new();
        for hook in &config.hooks {
            let (retry, retries) = mpsc::channel(1);
            starts.push(Start { hook: hook.clone(), poster: poster.clone(), retries });
            hooks.push((hook.clone(), retry));
        }
        Ok((Self { hooks }, starts))
    }

    /// How all of them stand.
    pub(crate) async fn states(&self, hub: &Hub) -> Result<Vec<HookState>, StoreError> {
        let mut states = Vec::with_capacity(self.hooks.len());
        for (hook, _) in &self.hooks {
            let store = hub.store();
            let (name, limit) = (hook.name.clone(), WEBHOOK_DEAD_LISTED_MAX);
            let due = Deliveries::Due { by_ms: i64::MAX, limit };
            states.push(HookState {
                url: shown(&hook.url),
                cursor: store.progress(name.clone()).await?.unwrap_or_default(),
                last: store.last_changed().await?,
                waiting: store.deliveries(name.clone(), due).await?,
                dead: store.deliveries(name.clone(), Deliveries::Dead(limit)).await?,
                name,
            });
        }
        Ok(states)
    }

    /// Whether there is one with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.hooks.iter().any(|(hook, _)| hook.name == name)
    }

    /// Lets a webhook try again what is dead. Returns how many documents that are; `None` if there is no such webhook, or it does not run.
    pub(crate) async fn retry(&self, name: &str) -> Option<usize> {
        let (_, retry) = self.hooks.iter().find(|(hook, _)| hook.name == name)?;
        let (answer, answered) = oneshot::channel();
        retry.send(answer).await.ok()?;
        answered.await.ok()
    }
}

/// Where it goes, without a user, a password or a query.
fn shown(url: &Uri) -> String {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let place = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{place}{}", url.scheme_str().unwrap_or("http"), url.path())
}

/// A webhook that has never been told anything begins with what happens from now on. To be called before anybody is let in.
pub(crate) async fn settle(hub: &Hub, starts: &[Start]) -> Result<(), StoreError> {
    for start in starts {
        cursor(hub, &start.hook.name).await?;
    }
    Ok(())
}

/// How far a webhook has got.
async fn cursor(hub: &Hub, name: &str) -> Result<u64, StoreError> {
    let store = hub.store();
    if let Some(cursor) = store.progress(name.to_owned()).await? {
        return Ok(cursor);
    }
    let last = store.last_changed().await?;
    store.put_progress(name.to_owned(), Some(last), Vec::new()).await?;
    Ok(last)
}

/// Tells one receiver, until the server goes away.
pub(crate) async fn run(hub: Arc<Hub>, start: Start) {
    let mut phase = hub.phase();
    let Start { hook, poster, retries } = start;
    let mut teller = Teller { hub, hook, poster, retries, to_no_avail: 0 };
    tokio::select! {
        () = draining(&mut phase) => {}
        () = teller.run() => {}
    }
}

struct Teller {
    hub: Arc<Hub>,
    hook: Webhook,
    poster: Poster,
    retries: mpsc::Receiver<Retry>,
    /// How often in a row posting was to no avail.
    to_no_avail: u32,
}

/// A document that is to be told about.
struct Item {
    changed: Changed,
    before: Option<Delivery>,
}

/// What became of a post.
struct Posted {
    /// What is to be noted.
    delivery: Delivery,
    /// The receiver is there.
    is_answered: bool,
}

/// Whether there is no use in posting on for now: nobody answers, or whatever is posted is refused. A few documents that are refused do not hold up others: each waits by itself.
fn is_to_no_avail(posted: &[Posted]) -> bool {
    let is_taken = posted.iter().any(|posted| posted.delivery.state == DeliveryState::Done);
    let is_answered = posted.iter().any(|posted| posted.is_answered);
    !is_taken && (!is_answered || posted.len() >= WEBHOOK_PAGE)
}

impl Teller {
    async fn run(&mut self) {
        loop {
            if let Err(error) = self.tell().await {
                tracing::warn!(webhook = %self.hook.name, %error, "the store does not say what there is to tell");
                sleep(self.hub.config().webhooks.retry_after).await;
            }
        }
    }

    /// Tells what there is to tell, and then waits for more.
    async fn tell(&mut self) -> Result<(), StoreError> {
        let mut moved = self.hub.followers().feed();
        let name = self.hook.name.clone();
        let mut cursor = cursor(&self.hub, &name).await?;
        loop {
            moved.borrow_and_update();
            let page = self.hub.changed(cursor, WEBHOOK_PAGE).await?;
            let end = page.last().map(|changed| changed.entry.changed);
            let items = self.items(page).await?;
            if items.is_empty() {
                if let Some(end) = end {
                    self.hub.store().put_progress(name.clone(), Some(end), Vec::new()).await?;
                    cursor = end;
                    continue;
                }
                self.wait(&mut moved).await?;
                continue;
            }
            let posted = self.post_all(items).await;
            // What was posted to no avail before the store is asked again must not be posted on and on.
            self.to_no_avail = if is_to_no_avail(&posted) { self.to_no_avail + 1 } else { 0 };
            let deliveries = posted.into_iter().map(|posted| posted.delivery).collect();
            self.hub.store().put_progress(name.clone(), end, deliveries).await?;
            cursor = end.unwrap_or(cursor);
            if self.to_no_avail > 0 {
                self.pause().await?;
            }
        }
    }

    /// What is to be posted now: of what changed, what does not wait because it failed; and what has waited long enough.
    async fn items(&self, page: Vec<Changed>) -> Result<Vec<Item>, StoreError> {
        let (store, name) = (self.hub.store(), self.hook.name.clone());
        let now = now_ms();
        let documents = page.iter().map(|changed| changed.entry.id).collect();
        let before = store.deliveries(name.clone(), Deliveries::Of(documents)).await?;
        let mut before: HashMap<DocumentId, Delivery> =
            before.into_iter().map(|delivery| (delivery.document, delivery)).collect();
        let mut items = Vec::new();
        for changed in page {
            let before = before.remove(&changed.entry.id);
            match before.as_ref().map(|delivery| delivery.state) {
                // When its time has come it is told what there is by then.
                Some(DeliveryState::Waits(_)) => {}
                Some(DeliveryState::Done) if !changed.entry.is_deleted && is_told(&before, &changed) => {}
                _ => items.push(Item { changed, before }),
            }
        }
        let due = store.deliveries(name, Deliveries::Due { by_ms: now, limit: WEBHOOK_PAGE }).await?;
        for delivery in due {
            if let Some(entry) = self.hub.entry(delivery.document).await? {
                items.push(Item { changed: self.hub.with_heads(entry).await?, before: Some(delivery) });
            }
        }
        Ok(items)
    }

    async fn post_all(&self, items: Vec<Item>) -> Vec<Posted> {
        iter(items).map(|item| self.post(item)).buffer_unordered(WEBHOOK_POSTS_AT_ONCE).collect().await
    }

    /// Tells of one document.
    async fn post(&self, item: Item) -> Posted {
        let Item { changed: Changed { entry, heads }, before } = item;
        let told = before.as_ref().and_then(|delivery| delivery.told.clone());
        let id = format!("msg_{}_{}", entry.id, entry.changed);
        let body = Bytes::from(body(&entry, heads.as_deref(), told.as_deref()));
        let posted = self.poster.post(&self.hook, &id, now_ms() / 1_000, body).await;
        let is_answered = !matches!(posted, Err(Failed::Unanswered(_)));
        let mut delivery = Delivery {
            document: entry.id,
            told,
            changed: entry.changed,
            state: DeliveryState::Done,
            attempts: 0,
            error: String::new(),
        };
        match posted {
            Ok(()) => {
                self.hub.metrics().webhooks.delivered.increment(1);
                delivery.told = heads;
            }
            Err(Failed::Unanswered(error) | Failed::Refused(error)) => {
                self.note_failure(&mut delivery, before, error);
            }
        }
        Posted { delivery, is_answered }
    }

    /// Notes why a document could not be told about, and when it is tried again.
    fn note_failure(&self, delivery: &mut Delivery, before: Option<Delivery>, mut error: String) {
        let metrics = &self.hub.metrics().webhooks;
        metrics.failed.increment(1);
        // One that is dead begins anew when the document changes.
        let waited = before.filter(|delivery| matches!(delivery.state, DeliveryState::Waits(_)));
        delivery.attempts = waited.map_or(0, |delivery| delivery.attempts) + 1;
        error.truncate(error.floor_char_boundary(WEBHOOK_ERROR_BYTES_MAX));
        delivery.error = error;
        delivery.state = self.next_attempt(delivery.attempts);
        let (webhook, document, error) = (&self.hook.name, delivery.document, &delivery.error);
        if delivery.state == DeliveryState::Dead {
            metrics.dead.increment(1);
            tracing::error!(%webhook, %document, %error, "a webhook failed too often; see `highwater webhooks list`");
        } else {
            tracing::warn!(%webhook, %document, attempt = delivery.attempts, %error, "a webhook failed");
        }
    }

    fn next_attempt(&self, attempts: u32) -> DeliveryState {
        let config = &self.hub.config().webhooks;
        if attempts >= config.attempts_max {
            return DeliveryState::Dead;
        }
        let pause = backoff(config.retry_after, attempts).as_millis();
        DeliveryState::Waits(now_ms().saturating_add(i64::try_from(pause).unwrap_or(i64::MAX)))
    }

    /// Until something happened, something is due, or somebody wants to have it tried again.
    async fn wait(&mut self, moved: &mut tokio::sync::watch::Receiver<u64>) -> Result<(), StoreError> {
        let next = Deliveries::Due { by_ms: i64::MAX, limit: 1 };
        let next = self.hub.store().deliveries(self.hook.name.clone(), next).await?.pop();
        let due = next.and_then(|delivery| match delivery.state {
            // What has come due since it was looked for is due at once.
            DeliveryState::Waits(due_ms) => Some(due_ms.saturating_sub(now_ms()).max(0).unsigned_abs()),
            _ => None,
        });
        let wait = due.map_or(WEBHOOK_WAIT_MAX, |ms| Duration::from_millis(ms).min(WEBHOOK_WAIT_MAX));
        tokio::select! {
            _ = moved.changed() => Ok(()),
            () = sleep(wait) => Ok(()),
            retry = self.retries.recv() => self.revive(retry).await,
        }
    }

    /// A while without posting, however much happens. Whoever asks to try again is heard.
    async fn pause(&mut self) -> Result<(), StoreError> {
        let first = self.hub.config().webhooks.retry_after;
        let pause = backoff(first, self.to_no_avail).min(WEBHOOK_WAIT_WHOLE_MAX);
        tokio::select! {
            () = sleep(pause) => Ok(()),
            retry = self.retries.recv() => self.revive(retry).await,
        }
    }

    /// What is dead is due now.
    async fn revive(&mut self, retry: Option<Retry>) -> Result<(), StoreError> {
        let Some(retry) = retry else { return std::future::pending().await };
        let (store, name) = (self.hub.store(), self.hook.name.clone());
        let mut count = 0;
        loop {
            let mut dead = store.deliveries(name.clone(), Deliveries::Dead(WEBHOOK_DEAD_LISTED_MAX)).await?;
            if dead.is_empty() {
                break;
            }
            count += dead.len();
            for delivery in &mut dead {
                (delivery.state, delivery.attempts) = (DeliveryState::Waits(now_ms()), 0);
            }
            store.put_progress(name.clone(), None, dead).await?;
        }
        self.to_no_avail = 0;
        // Whoever asked may be gone.
        let _ = retry.send(count);
        Ok(())
    }
}

/// Whether it knows already all that there is to tell: what came since adds nothing to the document.
fn is_told(before: &Option<Delivery>, changed: &Changed) -> bool {
    let told = before.as_ref().and_then(|delivery| delivery.told.as_ref());
    told.is_some() && told == changed.heads.as_ref()
}

fn body(entry: &DocumentEntry, heads: Option<&[ChangeHash]>, from: Option<&[ChangeHash]>) -> String {
    let kind = if entry.is_deleted { "document.deleted" } else { "document.changed" };
    json!({
        "type": kind,
        "data": {
            "document": entry.id.to_string(),
            "url": format!("automerge:{}", entry.id),
            "changed": entry.changed,
            "changed_ms": entry.changed_ms,
            "heads": heads.map(hashes),
            "from": from.map(hashes),
        },
    })
    .to_string()
}

/// How long to wait after so many failures: twice as long after each, less a random part, so that what failed together is not tried together.
fn backoff(first: Duration, failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(WEBHOOK_WAIT_MAX);
    let mut random = [0; 2];
    // Without randomness everything is only tried together.
    let _ = getrandom::fill(&mut random);
    doubled.mul_f64(1.0 - f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX) / 2.0)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    crate::now_ms() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_at_an_hour() {
        let first = Duration::from_secs(1);
        for (failures, most) in [(1, 1), (2, 2), (5, 16), (12, 2048), (13, 3600), (1000, 3600)] {
            let pause = backoff(first, failures);
            let most = Duration::from_secs(most);
            assert!(pause <= most && pause >= most / 2, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn a_receiver_is_left_alone_if_nobody_answers_or_a_whole_page_is_refused() {
        let posted = |state, is_answered| {
            let document = DocumentId::from_bytes([0; 16]);
            let delivery =
                Delivery { document, told: None, changed: 1, state, attempts: 1, error: String::new() };
            Posted { delivery, is_answered }
        };
        let unanswered = || posted(DeliveryState::Waits(0), false);
        let refused = || posted(DeliveryState::Dead, true);
        let taken = || posted(DeliveryState::Done, true);
        let page = |count, of: &dyn Fn() -> Posted| -> Vec<Posted> { (0..count).map(|_| of()).collect() };
        assert!(is_to_no_avail(&[unanswered()]));
        assert!(!is_to_no_avail(&[unanswered(), taken()]));
        assert!(!is_to_no_avail(&[unanswered(), refused()]));
        assert!(!is_to_no_avail(&page(WEBHOOK_PAGE - 1, &refused)));
        let mut whole = page(WEBHOOK_PAGE, &refused);
        assert!(is_to_no_avail(&whole));
        whole[0] = taken();
        assert!(!is_to_no_avail(&whole));
    }

    #[test]
    fn an_address_is_shown_with_its_port_and_without_secrets() {
        let cases = [
            ("https://example.com/hook?token=x", "https://example.com/hook"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x"),
            ("https://user:pass@example.com:444/hook", "https://example.com:444/hook"),
        ];
        for (url, expected) in cases {
            assert_eq!(shown(&url.parse().unwrap()), expected);
        }
    }

    #[test]
    fn an_address_with_a_user_is_refused_without_repeating_it() {
        let secret = Secret::parse(&format!("whsec_{}=", "A".repeat(43))).unwrap();
        for url in ["http://user:pass@example.com/", "https://user@example.com:444"] {
            let refused = Webhook::new("a", url, secret.clone()).unwrap_err();
            assert!(refused.contains("signature") && !refused.contains("user@"), "{refused}");
            assert!(!refused.contains("pass@"), "{refused}");
        }
        assert!(Webhook::new("a", "https://example.com/@user", secret).is_ok());
    }
}

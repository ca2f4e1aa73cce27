//! What is known of the heads of other storages, to be passed on to peers that follow them.

use std::collections::{BTreeMap, BTreeSet};

use super::ConnectionId;
use crate::history::History;
use crate::id::StorageId;
use crate::limits::REMOTE_STORAGES_MAX;
use crate::wire::RemoteHeads;

/// The newest heads per storage. They are told to nobody before all of them are durable here.
#[derive(Debug, Default)]
pub(super) struct RemoteHeadsBook {
    entries: BTreeMap<StorageId, Entry>,
    /// Storages with heads that were not passed on yet.
    news: BTreeSet<StorageId>,
}

#[derive(Debug)]
struct Entry {
    heads: RemoteHeads,
    /// Who told us, and need not be told.
    from: ConnectionId,
}

impl RemoteHeadsBook {
    /// Notes the heads of a storage, if they are newer than those that are known and different.
    pub(super) fn learn(&mut self, from: ConnectionId, heads: RemoteHeads) {
        let known = self.entries.get(&heads.storage);
        let is_old = known
            .is_some_and(|known| known.heads.timestamp > heads.timestamp || known.heads.heads == heads.heads);
        let is_full = known.is_none() && self.entries.len() >= REMOTE_STORAGES_MAX;
        if is_old || is_full || heads.heads.is_empty() {
            return;
        }
        self.news.insert(heads.storage.clone());
        self.entries.insert(heads.storage.clone(), Entry { heads, from });
    }

    /// The heads that were not passed on yet and are durable by now, with who told us.
    pub(super) fn take_news(&mut self, history: &History) -> Vec<(ConnectionId, RemoteHeads)> {
        if self.news.is_empty() {
            return Vec::new();
        }
        let entries = &self.entries;
        let durable =
            |storage: &StorageId| entries.get(storage).filter(|entry| is_durable(&entry.heads, history));
        let news = self.news.iter().filter_map(durable);
        let news: Vec<_> = news.map(|entry| (entry.from, entry.heads.clone())).collect();
        for (_, heads) in &news {
            self.news.remove(&heads.storage);
        }
        news
    }

    /// The durable heads of these storages.
    pub(super) fn known_to(
        &self,
        subscriptions: &BTreeSet<StorageId>,
        history: &History,
    ) -> Vec<RemoteHeads> {
        let known = subscriptions.iter().filter_map(|storage| self.entries.get(storage));
        known.map(|entry| entry.heads.clone()).filter(|heads| is_durable(heads, history)).collect()
    }
}

fn is_durable(heads: &RemoteHeads, history: &History) -> bool {
    heads.heads.iter().all(|head| history.contains(head))
}

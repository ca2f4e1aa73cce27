//! Making a document hold a value by changing only what differs.

use std::collections::BTreeMap;

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, hydrate};

use super::align::{Block, Budget, Ids, blocks, hunks, text_hunks};
use super::sketch::{Sketch, Step, count, pair, scalar_is, write_class};
use super::{EditError, EditReason, Fault, UNDO_BYTES_MAX, UNDO_OPS_MAX};
use crate::json::{Found, Reader, Value};
use crate::limits::{DIFF_STEPS_MAX, EDIT_BYTES_MAX, EDIT_OPS_MAX, JSON_DEPTH_MAX};

/// A document while it is edited, and what that has cost.
pub(super) struct Editor<'t, 'd> {
    transaction: &'t mut Transaction<'d>,
    budget: Budget,
    bytes: usize,
    /// Values that were read to be put somewhere else.
    copied: usize,
    copied_bytes: usize,
    can_undo: bool,
}

impl<'t, 'd> Editor<'t, 'd> {
    /// `can_undo` says that what is done is undone if it fails, so that it must not get large.
    pub(super) fn new(transaction: &'t mut Transaction<'d>, can_undo: bool) -> Self {
        Self { transaction, budget: Budget(DIFF_STEPS_MAX), bytes: 0, copied: 0, copied_bytes: 0, can_undo }
    }

    pub(super) fn reader(&self) -> Reader<'_, Transaction<'d>> {
        Reader::now(self.transaction)
    }

    pub(super) fn get(&self, id: &ObjId, prop: Prop) -> Option<Found> {
        self.reader().get(id, prop)
    }

    /// Counts what is going to be done against the limits.
    fn charge(&mut self, ops: usize, bytes: usize) -> Result<(), Fault> {
        let ops = self.transaction.pending_ops().saturating_add(ops);
        self.bytes = self.bytes.saturating_add(bytes);
        at_most(EDIT_OPS_MAX, ops, "operations in one edit")?;
        at_most(EDIT_BYTES_MAX, self.bytes, "bytes put in by one edit")?;
        if self.can_undo && (ops > UNDO_OPS_MAX || self.bytes > UNDO_BYTES_MAX) {
            return Err(Fault::Large);
        }
        Ok(())
    }

    /// Reads what is at a place, to put it somewhere else. Counts against the limits even if it is there already.
    pub(super) fn copy(&mut self, found: &Found) -> Result<Value, Fault> {
        let levels = EditReason::TooLarge { what: "levels of lists and maps", max: JSON_DEPTH_MAX };
        let value = self.reader().value(found, 0).map_err(|_| EditError::whole(levels))?;
        if self.reader().has_rich_text(found) {
            let reason = EditReason::WrongType(
                "a text with marks or blocks cannot be moved or copied: they would be lost",
            );
            return Err(EditError::whole(reason).into());
        }
        let (values, bytes) = value.cost();
        self.copied = self.copied.saturating_add(values);
        self.copied_bytes = self.copied_bytes.saturating_add(bytes);
        at_most(EDIT_OPS_MAX, self.copied, "values copied by one edit")?;
        at_most(EDIT_BYTES_MAX, self.copied_bytes, "bytes copied by one edit")?;
        Ok(value)
    }

    /// Makes the whole document this.
    pub(super) fn set_root(&mut self, value: &Value) -> Result<(), Fault> {
        match value {
            Value::Map(entries) => self.sync_map(&ROOT, entries),
            _ => Err(EditError::whole(EditReason::WrongType("a document is an object")).into()),
        }
    }

    /// Makes a place hold a value. Puts it there if there is nothing.
    pub(super) fn assign(
        &mut self,
        id: &ObjId,
        prop: Prop,
        found: Option<Found>,
        wanted: &Value,
    ) -> Result<(), Fault> {
        match (found, wanted) {
            (Some(Found::Object(ObjType::Map, id)), Value::Map(entries)) => self.sync_map(&id, entries),
            (Some(Found::Object(ObjType::List, id)), Value::List(items)) => self.sync_list(&id, items),
            (Some(Found::Object(ObjType::Text, id)), Value::String(text)) => self.sync_text(&id, text),
            (Some(Found::Object(ObjType::Table, _)), _) => Err(table().into()),
            (Some(Found::Scalar(scalar)), wanted) => self.assign_scalar(id, prop, &scalar, wanted),
            (_, wanted) => self.put(id, prop, wanted),
        }
    }

    fn assign_scalar(
        &mut self,
        id: &ObjId,
        prop: Prop,
        found: &ScalarValue,
        wanted: &Value,
    ) -> Result<(), Fault> {
        if scalar_is(found, wanted) {
            return Ok(());
        }
        match (found, wanted) {
            (ScalarValue::Str(_), Value::String(text)) => self.put(id, prop, &Value::Scalar(text.clone())),
            (ScalarValue::Counter(counter), wanted) => {
                let by = count(wanted).and_then(|count| count.checked_sub(i64::from(counter)));
                match by {
                    Some(by) => self.increment(id, prop, by),
                    None => self.put(id, prop, wanted),
                }
            }
            _ => self.put(id, prop, wanted),
        }
    }

    /// Puts a value at a key, or in the place of an element.
    fn put(&mut self, id: &ObjId, prop: Prop, value: &Value) -> Result<(), Fault> {
        let (ops, bytes) = value.cost();
        self.charge(ops, bytes + key_len(&prop))?;
        match value.scalar() {
            Some(scalar) => self.transaction.put(id, prop, scalar)?,
            None => drop(self.transaction.batch_create_object(id, prop, &value.hydrate(), false)?),
        }
        Ok(())
    }

    /// Counts on. `by` must fit.
    pub(super) fn increment(&mut self, id: &ObjId, prop: Prop, by: i64) -> Result<(), Fault> {
        if by == 0 {
            return Ok(());
        }
        self.charge(1, key_len(&prop))?;
        Ok(self.transaction.increment(id, prop, by)?)
    }

    /// Removes what is at a key or place.
    pub(super) fn delete(&mut self, id: &ObjId, prop: Prop) -> Result<(), Fault> {
        self.charge(1, key_len(&prop))?;
        Ok(self.transaction.delete(id, prop)?)
    }

    fn sync_map(&mut self, id: &ObjId, wanted: &BTreeMap<String, Value>) -> Result<(), Fault> {
        let entry = |entry: automerge::iter::MapRangeItem<'_>| {
            let id = entry.id();
            (entry.key.into_owned(), Found::new(entry.value, || id))
        };
        let mut found: BTreeMap<String, Found> = self.reader().entries(id).map(entry).collect();
        for (key, value) in wanted {
            let found = found.remove(key);
            self.assign(id, Prop::Map(key.clone()), found, value)?;
        }
        found.into_keys().try_for_each(|key| self.delete(id, Prop::Map(key)))
    }

    fn sync_list(&mut self, id: &ObjId, wanted: &[Value]) -> Result<(), Fault> {
        let item = |item: automerge::iter::ListRangeItem<'_>| {
            let id = item.id();
            Found::new(item.value, || id)
        };
        let found: Vec<Found> = self.reader().items(id).map(item).collect();
        let is = |(found, wanted): &(&Found, &Value)| self.is(found, wanted);
        let start = found.iter().zip(wanted).take_while(is).count();
        let (found, wanted) = (&found[start..], &wanted[start..]);
        let end = found.iter().rev().zip(wanted.iter().rev()).take_while(is).count();
        let (found, wanted) = (&found[..found.len() - end], &wanted[..wanted.len() - end]);
        if found.is_empty() && wanted.is_empty() {
            return Ok(());
        }
        let steps = self.list_steps(found, wanted);
        self.apply_steps(id, start, &steps, found, wanted)
    }

    /// What becomes of the elements of a list.
    fn list_steps(&mut self, found: &[Found], wanted: &[Value]) -> Vec<Step> {
        let reader = self.reader();
        // What is nested too deep is like nothing else, and is replaced.
        let old: Vec<Option<Value>> = found.iter().map(|found| reader.value(found, 0).ok()).collect();
        let mut ids = Ids::default();
        let mut class = |place: usize, value: Option<&Value>| {
            let mut class = Vec::new();
            match value {
                Some(value) => write_class(value, &mut class),
                None => class.extend(format!("place {place}").bytes()),
            }
            ids.of(class)
        };
        let old_ids: Vec<u32> =
            old.iter().enumerate().map(|(place, value)| class(place, value.as_ref())).collect();
        let new_ids: Vec<u32> = wanted.iter().map(|value| class(0, Some(value))).collect();
        let blocks = blocks(&old_ids, &new_ids, &mut self.budget);
        let sketch = |value: &Option<Value>| Sketch::new(value.as_ref().unwrap_or(&Value::Null));
        let mut steps = Vec::new();
        let mut hunks = hunks(&blocks, old.len(), wanted.len()).into_iter().peekable();
        let end = Block { old: old.len(), new: wanted.len(), len: 0 };
        for block in blocks.iter().chain([&end]) {
            if let Some(hunk) = hunks.next_if(|hunk| hunk.old.start < block.old || hunk.new.start < block.new)
            {
                let old: Vec<Sketch> = old[hunk.old.clone()].iter().map(sketch).collect();
                let new: Vec<Sketch> = wanted[hunk.new.clone()].iter().map(Sketch::new).collect();
                steps.extend(pair(&hunk, &old, &new, &mut self.budget));
            }
            steps.extend((0..block.len).map(|n| Step::Both(block.old + n, block.new + n)));
        }
        steps
    }

    /// Does to a list, from a place on, what becomes of its elements.
    fn apply_steps(
        &mut self,
        id: &ObjId,
        start: usize,
        steps: &[Step],
        found: &[Found],
        wanted: &[Value],
    ) -> Result<(), Fault> {
        let mut place = start;
        let (mut deleted, mut inserted) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Delete(_) => deleted += 1,
                Step::Insert(new) => inserted.push(&wanted[*new]),
                Step::Both(old, new) => {
                    self.splice_list(id, place, deleted, &inserted)?;
                    place += inserted.len();
                    (deleted, inserted) = (0, Vec::new());
                    self.assign(id, Prop::Seq(place), Some(found[*old].clone()), &wanted[*new])?;
                    place += 1;
                }
            }
        }
        self.splice_list(id, place, deleted, &inserted)
    }

    /// Removes elements from a place on and puts others there.
    pub(super) fn splice_list(
        &mut self,
        id: &ObjId,
        place: usize,
        deleted: usize,
        inserted: &[&Value],
    ) -> Result<(), Fault> {
        if deleted == 0 && inserted.is_empty() {
            return Ok(());
        }
        let costs = inserted.iter().map(|value| value.cost());
        let (ops, bytes) = costs.fold((deleted, 0), |sum, cost| (sum.0 + cost.0, sum.1 + cost.1));
        self.charge(ops, bytes)?;
        let values: Vec<hydrate::Value> = inserted.iter().map(|value| value.hydrate()).collect();
        Ok(self.transaction.splice(id, place, deleted as isize, values)?)
    }

    fn sync_text(&mut self, id: &ObjId, wanted: &str) -> Result<(), Fault> {
        let found = self.reader().text(id);
        if found == wanted {
            return Ok(());
        }
        let old: Vec<char> = found.chars().collect();
        let new: Vec<char> = wanted.chars().collect();
        let hunks = text_hunks(&old, &new, &mut self.budget);
        // From the end, so that what comes before stays where it is.
        for hunk in hunks.into_iter().rev() {
            let inserted: String = new[hunk.new].iter().collect();
            self.splice_text(id, hunk.old.start, hunk.old.len(), &inserted)?;
        }
        Ok(())
    }

    /// Removes code points of a text from a place on, and puts others there.
    pub(super) fn splice_text(
        &mut self,
        id: &ObjId,
        place: usize,
        deleted: usize,
        inserted: &str,
    ) -> Result<(), Fault> {
        if deleted == 0 && inserted.is_empty() {
            return Ok(());
        }
        // Some clients write several code points as one element, and it can only be removed as a whole: what is to stay of it is put in again.
        let (mut start, mut end, mut text) = (place, place + deleted, inserted.to_owned());
        if let Some((at, element)) = self.element_around(id, end) {
            let kept = end - at;
            text.extend(element.chars().skip(kept));
            end = at + element.chars().count();
        }
        if let Some((at, element)) = self.element_around(id, start) {
            let kept: String = element.chars().take(start - at).collect();
            text.insert_str(0, &kept);
            start = at;
        }
        self.charge(end - start + text.chars().count(), text.len())?;
        Ok(self.transaction.splice_text(id, start, (end - start) as isize, &text)?)
    }

    /// The element of a text that begins before a place and ends after it, and where it begins.
    fn element_around(&self, id: &ObjId, place: usize) -> Option<(usize, String)> {
        let Some(Found::Scalar(ScalarValue::Str(element))) = self.get(id, Prop::Seq(place)) else {
            return None;
        };
        // Most have only one, and need not be looked for.
        element.chars().nth(1)?;
        let cursor = self.transaction.get_cursor(id, place, None).ok()?;
        let start = self.transaction.get_cursor_position(id, &cursor, None).ok()?;
        (start < place).then(|| (start, element.to_string()))
    }

    /// How many code points a text has.
    pub(super) fn text_len(&self, id: &ObjId) -> usize {
        self.transaction.length(id)
    }

    /// How many elements a list has. Looks at few of them: counting them takes time for each.
    pub(super) fn list_len(&self, id: &ObjId) -> usize {
        // Only looks: what is there may be large.
        let has = |place: usize| self.transaction.get(id, place).is_ok_and(|found| found.is_some());
        let mut end = 1;
        while has(end - 1) {
            end *= 2;
        }
        // It has the place before `low`, if that is not 0, and not the place before `end`.
        let (mut low, mut high) = (end / 2, end - 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if has(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Whether what is at a place needs no edit to be this.
    pub(super) fn is(&self, found: &Found, wanted: &Value) -> bool {
        let reader = self.reader();
        match (found, wanted) {
            (Found::Scalar(scalar), wanted) => scalar_is(scalar, wanted),
            (Found::Object(ObjType::Text, id), Value::String(text)) => reader.text(id) == *text,
            (Found::Object(ObjType::List, id), Value::List(wanted)) => {
                let mut wanted = wanted.iter();
                let is_next = |item: automerge::iter::ListRangeItem<'_>| {
                    let id = item.id();
                    wanted.next().is_some_and(|wanted| self.is(&Found::new(item.value, || id), wanted))
                };
                reader.items(id).all(is_next) && wanted.next().is_none()
            }
            (Found::Object(ObjType::Map | ObjType::Table, id), Value::Map(wanted)) => {
                let mut wanted = wanted.iter();
                let is_next = |entry: automerge::iter::MapRangeItem<'_>| {
                    let id = entry.id();
                    wanted.next().is_some_and(|(key, wanted)| {
                        *key == entry.key && self.is(&Found::new(entry.value, || id), wanted)
                    })
                };
                reader.entries(id).all(is_next) && wanted.next().is_none()
            }
            _ => false,
        }
    }
}

/// Whether there are no more of these than there may be.
fn at_most(max: usize, count: usize, what: &'static str) -> Result<(), EditError> {
    if count > max { Err(EditError::whole(EditReason::TooLarge { what, max })) } else { Ok(()) }
}

/// Stock clients do not write tables any more, and automerge edits none.
pub(super) fn table() -> EditError {
    EditError::whole(EditReason::WrongType("a table of an old version of Automerge cannot be edited"))
}

fn key_len(prop: &Prop) -> usize {
    match prop {
        Prop::Map(key) => key.len(),
        Prop::Seq(_) => 0,
    }
}

//! Keeping what comparisons of both sides find.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use crossfade_message::{NewDifference, OpenVerification, Store, image_json};
use crossfade_model::{Row, TableLayout};
use crossfade_verify::{Difference, Keeper, VerifyError};

/// An image that is larger is not kept.
const LARGEST_IMAGE_BYTES: usize = 1 << 20;

/// So many differences are remembered with their values until they are mended.
const REMEMBERED_WHOLE: usize = 1_000;

/// Keeps differences in the store, and at hand where they are to be mended.
pub struct InStore {
    store: Store,
    verification: OpenVerification,
    repaired: Option<Mutex<Vec<Difference>>>,
}

impl InStore {
    /// `to_repair`: they are to be had again, by [`InStore::to_repair`].
    pub fn new(store: &Store, verification: OpenVerification, to_repair: bool) -> InStore {
        InStore { store: store.clone(), verification, repaired: to_repair.then(Mutex::default) }
    }

    pub fn to_repair(&self) -> Vec<Difference> {
        let taken =
            |kept: &Mutex<Vec<Difference>>| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        self.repaired.as_ref().map(taken).unwrap_or_default()
    }

    fn remember(&self, difference: &Difference) {
        let Some(kept) = &self.repaired else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut difference = difference.clone();
        if kept.len() >= REMEMBERED_WHOLE {
            // Their values are read again under locks.
            (difference.old, difference.new) = (None, None);
        }
        kept.push(difference);
    }
}

impl Keeper for InStore {
    fn keep(&self, difference: Difference) -> Pin<Box<dyn Future<Output = Result<(), VerifyError>> + Send + '_>> {
        Box::pin(async move {
            self.remember(&difference);
            let kept = kept(difference);
            Ok(self.store.keep_difference(self.verification, &kept).await?)
        })
    }
}

fn kept(difference: Difference) -> NewDifference {
    let key = difference.row_key();
    let image = |side: &Option<(TableLayout, Row)>| {
        side.as_ref().map(|(layout, row)| image_json(layout, row)).filter(|json| json.len() <= LARGEST_IMAGE_BYTES)
    };
    let columns: Vec<serde_json::Value> =
        difference.columns.iter().map(|names| serde_json::json!({ "old": names.old, "new": names.new })).collect();
    NewDifference {
        table: difference.table,
        kind: difference.kind.as_str(),
        row_key: key,
        columns: serde_json::Value::from(columns).to_string(),
        old_image: image(&difference.old),
        new_image: image(&difference.new),
    }
}

//! What all connections of a receiver share while requests come in: bytes of bodies, and turns to be
//! decoded; and who makes way where all of it is taken.
//!
//! Places and bytes that are held by bodies that do not come are taken back when somebody needs them:
//! from the connection that has most of it, so that a few, or slow ones, do not keep out all others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// A body that has not come after this time is slow.
const BODY_GRACE: Duration = Duration::from_secs(1);

/// A number of bytes that all connections of a receiver share.
#[derive(Debug)]
pub struct Room {
    taken_bytes: AtomicUsize,
    limit_bytes: usize,
    /// Bodies that are waited for, the oldest one first; and the number of the next one.
    waiting: Mutex<(u64, BTreeMap<u64, Arc<Waiting>>)>,
    /// Bodies that are decoded at once on threads of their own. More would not be faster, and each
    /// thread keeps memory of the largest body it has seen.
    decoders: Arc<Semaphore>,
    decoders_max: usize,
    /// How long one waits for its turn at most.
    turn_time: Duration,
}

/// A body of which not all is there.
#[derive(Debug)]
struct Waiting {
    share: Arc<Share>,
    since: Instant,
    bytes: AtomicUsize,
    make_way: Notify,
}

impl Waiting {
    fn is_slow(&self) -> bool {
        self.since.elapsed() >= BODY_GRACE
    }
}

/// Half of the processors decode what comes.
fn decoders_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores.div_ceil(2)
}

impl Room {
    /// Room for `limit_bytes`; a body waits for its turn to be decoded for `turn_time` at most.
    pub fn new(limit_bytes: usize, turn_time: Duration) -> Arc<Room> {
        let decoders_max = decoders_max();
        Arc::new(Room {
            taken_bytes: AtomicUsize::new(0),
            limit_bytes,
            waiting: Mutex::default(),
            decoders: Arc::new(Semaphore::new(decoders_max)),
            decoders_max,
            turn_time,
        })
    }

    /// How many bodies are decoded at once on threads of their own, at most.
    pub fn decoders_max(&self) -> usize {
        self.decoders_max
    }

    /// Bytes taken now.
    pub fn taken_bytes(&self) -> usize {
        self.taken_bytes.load(Ordering::Acquire)
    }

    fn waiting(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Waiting>>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a request whose body does not come to leave its place for one on the connection of `share`.
    /// It is one of a connection that has more of them than that has places, or as many, and is slow. False
    /// if there is none.
    pub fn make_place(&self, share: &Share) -> bool {
        let own = share.places.load(Ordering::Acquire);
        let mut waiting = self.waiting();
        let theirs = |w: &Waiting| w.share.waiting.load(Ordering::Acquire);
        let yields = |w: &Waiting| theirs(w) > own || (theirs(w) == own && w.is_slow());
        let yielding = waiting.1.iter().filter(|(_, w)| yields(w));
        // Of those that have as much the oldest one.
        let most = yielding.rev().max_by_key(|(_, w)| theirs(w));
        let Some(number) = most.map(|(number, _)| *number) else {
            return false;
        };
        make_way(&mut waiting.1, number);
        true
    }

    /// Asks bodies that do not come to leave `bytes` for one on the connection of `share`: those of
    /// connections that have more, then slow ones. False if that is not enough; then none has to.
    fn make_bytes(&self, share: &Share, bytes: usize) -> bool {
        let own = share.bytes.load(Ordering::Acquire).saturating_add(bytes);
        let mut waiting = self.waiting();
        let theirs = |w: &Waiting| w.share.bytes.load(Ordering::Acquire);
        let yields = |w: &Waiting| theirs(w) > own || w.is_slow();
        let yielding = waiting.1.iter().filter(|(_, w)| yields(w));
        let mut yielding: Vec<_> = yielding.map(|(number, w)| (theirs(w), *number)).collect();
        yielding.sort_unstable_by_key(|(theirs, number)| (std::cmp::Reverse(*theirs), *number));
        let (mut chosen, mut freed) = (Vec::new(), 0);
        for (_, number) in yielding {
            if freed >= bytes {
                break;
            }
            freed += waiting.1[&number].bytes.load(Ordering::Acquire);
            chosen.push(number);
        }
        if freed < bytes {
            return false;
        }
        for number in chosen {
            make_way(&mut waiting.1, number);
        }
        true
    }
}

/// Each is asked once.
fn make_way(waiting: &mut BTreeMap<u64, Arc<Waiting>>, number: u64) {
    if let Some(asked) = waiting.remove(&number) {
        asked.share.waiting.fetch_sub(1, Ordering::AcqRel);
        asked.make_way.notify_one();
    }
}

/// What the requests of one connection have taken.
#[derive(Debug)]
pub struct Share {
    /// Places among the requests at the same time.
    places: AtomicUsize,
    /// Of those the ones whose bodies are waited for.
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    /// Bodies that are decoded or next in line. However many more the connection has, the line that all
    /// stand in is short.
    decoders: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Share {
        Share {
            places: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            decoders: Arc::new(Semaphore::new(decoders_max())),
        }
    }
}

impl Share {
    /// Takes a place; gives how many it has with it.
    pub fn enter(&self) -> usize {
        self.places.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.places.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What one request has taken; given back on drop.
#[derive(Debug)]
pub struct Hold {
    room: Arc<Room>,
    share: Arc<Share>,
    bytes: usize,
    /// Its body is waited for.
    waiting: Option<(u64, Arc<Waiting>)>,
}

/// The turn of a body to be decoded; it lasts until this is dropped.
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Hold {
    /// Nothing yet, for a request on the connection of `share`.
    pub fn of(room: &Arc<Room>, share: &Arc<Share>) -> Hold {
        Hold {
            room: room.clone(),
            share: share.clone(),
            bytes: 0,
            waiting: None,
        }
    }

    /// The body is waited for; returns when it has to make way.
    pub async fn wait(&mut self) {
        if self.waiting.is_none() {
            let waiting = Arc::new(Waiting {
                share: self.share.clone(),
                since: Instant::now(),
                bytes: AtomicUsize::new(self.bytes),
                make_way: Notify::new(),
            });
            self.share.waiting.fetch_add(1, Ordering::AcqRel);
            let mut all = self.room.waiting();
            all.0 += 1;
            let number = all.0;
            all.1.insert(number, waiting.clone());
            drop(all);
            self.waiting = Some((number, waiting));
        }
        if let Some((_, waiting)) = &self.waiting {
            waiting.make_way.notified().await;
        }
    }

    /// The body is there as a whole, or given up.
    pub fn came(&mut self) {
        if let Some((number, _)) = self.waiting.take()
            && self.room.waiting().1.remove(&number).is_some()
        {
            self.share.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits for the turn of a body to be decoded on a thread of its own. `None` if it takes too long.
    pub async fn turn(&self) -> Option<Turn> {
        let (own, all) = (self.share.decoders.clone(), self.room.decoders.clone());
        let turn = async {
            // Neither is ever closed.
            let own = own.acquire_owned().await.ok()?;
            let all = all.acquire_owned().await.ok()?;
            Some(Turn {
                _all: all,
                _own: own,
            })
        };
        let turn = tokio::time::timeout(self.room.turn_time, turn).await;
        turn.ok().flatten()
    }

    /// Takes `bytes` more; false if there is no room for them. Who has all that is taken may take more
    /// than there is: a single request is bounded by its own limit. So may one for whom others make way,
    /// as much as they give back.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let (own, limit) = (self.bytes, self.room.limit_bytes);
        let take = |taken: usize| {
            let after = taken.saturating_add(bytes);
            (after <= limit || taken == own).then_some(after)
        };
        let taken = &self.room.taken_bytes;
        let done = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        if done.is_err() {
            if !self.room.make_bytes(&self.share, bytes) {
                return false;
            }
            taken.fetch_add(bytes, Ordering::AcqRel);
        }
        self.bytes += bytes;
        self.share.bytes.fetch_add(bytes, Ordering::AcqRel);
        if let Some((_, waiting)) = &self.waiting {
            waiting.bytes.store(self.bytes, Ordering::Release);
        }
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.came();
        let taken = [&self.room.taken_bytes, &self.share.bytes];
        for taken in taken {
            taken.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_taken_comes_back_and_one_alone_may_exceed_the_limit() {
        let room = Room::new(100, LONG);
        let share = Arc::new(Share::default());
        let (mut a, mut b) = (Hold::of(&room, &share), Hold::of(&room, &share));
        assert!(a.grow(60) && b.grow(40) && !a.grow(1) && !b.grow(1));
        assert_eq!(room.taken_bytes(), 100);
        drop(a);
        assert!(b.grow(500), "nobody else has any");
        drop(b);
        assert_eq!(room.taken_bytes(), 0);
        assert_eq!(share.bytes.load(Ordering::Acquire), 0);
    }

    /// A request on the connection of `share` with a place and so many bytes, whose body is waited for.
    async fn half(room: &Arc<Room>, share: &Arc<Share>, bytes: usize) -> Hold {
        share.enter();
        let mut hold = Hold::of(room, share);
        assert!(hold.grow(bytes));
        assert!(!makes_way(&mut hold).await);
        hold
    }

    async fn makes_way(hold: &mut Hold) -> bool {
        let now = Duration::from_millis(1);
        tokio::time::timeout(now, hold.wait()).await.is_ok()
    }

    /// Guarantee: the connection with most bodies that do not come makes way, the oldest body first, once;
    /// bodies that have come do not, and none does for a connection that has as much.
    #[tokio::test]
    async fn who_has_most_places_makes_way() {
        let room = Room::new(1000, LONG);
        let [many, few, new] = [(); 3].map(|()| Arc::new(Share::default()));
        assert!(!room.make_place(&new), "there is nobody");
        let mut first = half(&room, &few, 1).await;
        let mut second = half(&room, &many, 1).await;
        let mut third = half(&room, &many, 1).await;
        new.enter();
        assert!(room.make_place(&new));
        assert!(makes_way(&mut second).await);
        assert!(!makes_way(&mut first).await && !makes_way(&mut third).await);
        assert!(!room.make_place(&new), "each has one now");
        let mut fourth = half(&room, &many, 1).await;
        third.came();
        assert!(!room.make_place(&new), "of many one is waited for");
        drop((first, third));
        fourth.came();
        drop((second, fourth));
        let none = |share: &Share| share.waiting.load(Ordering::Acquire) == 0;
        assert!(none(&many) && none(&few) && room.waiting().1.is_empty());
    }

    /// Guarantee: with bytes it is the same: as many make way as are needed, and none if that is not
    /// enough.
    #[tokio::test]
    async fn who_has_most_bytes_makes_way() {
        let room = Room::new(100, LONG);
        let [many, few, new] = [(); 3].map(|()| Arc::new(Share::default()));
        let mut holds = Vec::new();
        for _ in 0..8 {
            holds.push(half(&room, &many, 10).await);
        }
        let mut other = half(&room, &few, 20).await;
        let mut honest = Hold::of(&room, &new);
        assert!(!honest.grow(90), "more than many has");
        assert!(honest.grow(15));
        assert_eq!(room.taken_bytes(), 115, "until two have made way");
        let mut made_way = Vec::new();
        for hold in &mut holds {
            made_way.push(makes_way(hold).await);
        }
        assert_eq!(made_way, [[true; 2].as_slice(), &[false; 6]].concat());
        assert!(!makes_way(&mut other).await);
        drop(holds.drain(..2));
        assert_eq!(room.taken_bytes(), 95);
        assert!(honest.grow(5) && honest.grow(1));
        drop((holds, other, honest));
        assert_eq!(room.taken_bytes(), 0);
    }

    /// Guarantee: a connection with many bodies to decode does not keep those of another waiting behind
    /// all of them.
    #[tokio::test]
    async fn turns_go_around() {
        let room = Room::new(100, LONG);
        let [many, few] = [(); 2].map(|()| Arc::new(Share::default()));
        let at_once = room.decoders.available_permits();
        let mut going = Vec::new();
        for _ in 0..at_once {
            going.push(Hold::of(&room, &many).turn().await);
        }
        let (tx, mut order) = tokio::sync::mpsc::unbounded_channel();
        let wait = |share: &Arc<Share>, name: &'static str| {
            let (hold, tx) = (Hold::of(&room, share), tx.clone());
            tokio::spawn(async move {
                let turn = hold.turn().await;
                tx.send(name).unwrap();
                drop(turn);
            });
        };
        (0..100).for_each(|_| wait(&many, "many"));
        tokio::task::yield_now().await;
        wait(&few, "few");
        tokio::task::yield_now().await;
        drop(going);
        let mut before = 0;
        while order.recv().await == Some("many") {
            before += 1;
        }
        assert!(before <= at_once, "{before} were before it");
    }

    /// Guarantee: nobody waits for a turn for ever.
    #[tokio::test]
    async fn a_turn_that_does_not_come_is_given_up() {
        let room = Room::new(100, Duration::from_millis(20));
        let share = Arc::new(Share::default());
        let mut going = Vec::new();
        for _ in 0..room.decoders.available_permits() {
            let other = Arc::new(Share::default());
            going.push(Hold::of(&room, &other).turn().await);
        }
        assert!(Hold::of(&room, &share).turn().await.is_none());
        drop(going);
        assert!(Hold::of(&room, &share).turn().await.is_some());
    }
}

//! Where idle connections wait for their next byte.
//!
//! A task of its own for each would cost several times the memory of the connection, so one attendant
//! watches the sockets of all of them through an epoll of its own, which the runtime watches as if it were one
//! socket. Whatever has bytes to say, or has ended, is handed back to be served.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Connections handed over in one go.
const BATCH: usize = 256;

/// Something with a socket that can wait here.
pub(super) trait Park {
    /// The socket. It stays the same while its owner is parked.
    fn socket(&self) -> BorrowedFd<'_>;

    /// Forgets who waited for the socket last.
    fn let_go(&self);
}

/// The parked connections of one listener.
#[derive(Debug)]
pub(super) struct Lot<T> {
    epoll: AsyncFd<OwnedFd>,
    places: Mutex<Places<T>>,
    /// Told when a deadline comes before all others.
    hurry: Notify,
    parked: IntGauge,
}

#[derive(Debug)]
struct Places<T> {
    parked: Slab<Parked<T>>,
    /// When to look at whom, soonest first.
    deadlines: BTreeSet<(Instant, usize)>,
    is_closed: bool,
}

#[derive(Debug)]
struct Parked<T> {
    connection: T,
    until: Instant,
}

/// Who watches a [`Lot`]. There is one; without it the lot is closed.
#[derive(Debug)]
pub(super) struct Attendant<T: Park>(Arc<Lot<T>>);

impl<T: Park> Lot<T> {
    /// An empty lot, which counts its connections in `parked`, and its attendant.
    ///
    /// # Errors
    /// When there is no file descriptor left for it.
    pub(super) fn open(parked: IntGauge) -> io::Result<Attendant<T>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let lot = Self {
            epoll: register(epoll)?,
            places: Mutex::new(Places {
                parked: Slab::new(),
                deadlines: BTreeSet::new(),
                is_closed: false,
            }),
            hurry: Notify::new(),
            parked,
        };
        Ok(Attendant(Arc::new(lot)))
    }

    /// Keeps a connection until it has bytes or `until` has come. In a closed lot it ends at once.
    ///
    /// # Errors
    /// When the system watches no more sockets; the connection ends.
    pub(super) fn park(&self, connection: T, until: Instant) -> io::Result<()> {
        connection.let_go();
        let is_first = {
            let mut places = self.places.lock();
            if places.is_closed {
                return Ok(());
            }
            let place = places.parked.vacant_key();
            // Told at once if there are bytes already; but nobody takes it out before the lock is free.
            epoll::add(
                self.epoll.get_ref(),
                connection.socket(),
                EventData::new_u64(place as u64),
                EventFlags::IN | EventFlags::RDHUP | EventFlags::ET,
            )?;
            places.parked.insert(Parked { connection, until });
            places.deadlines.insert((until, place));
            self.parked.inc();
            places.deadlines.first() == Some(&(until, place))
        };
        if is_first {
            self.hurry.notify_one();
        }
        Ok(())
    }

    /// Takes out some of those who have something to say; `None` when nobody has.
    fn woken(&self) -> io::Result<Option<Vec<T>>> {
        let mut room = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        let (events, _) = epoll::wait(self.epoll.get_ref(), &mut room, Some(&Timespec::default()))?;
        if events.is_empty() {
            return Ok(None);
        }
        let places = events.iter().map(|event| event.data.u64());
        let woken = places.filter_map(|place| self.take(usize::try_from(place).ok()?));
        Ok(Some(woken.collect()))
    }

    fn take(&self, place: usize) -> Option<T> {
        let mut places = self.places.lock();
        let parked = places.remove(place)?;
        drop(places);
        self.parked.dec();
        if let Err(error) = epoll::delete(self.epoll.get_ref(), parked.connection.socket()) {
            tracing::debug!(%error, "a parked connection was not watched");
        }
        Some(parked.connection)
    }

    /// When the next connection ends that says nothing.
    fn deadline(&self) -> Option<Instant> {
        let places = self.places.lock();
        places.deadlines.first().map(|(until, _)| *until)
    }

    /// Ends some of those whose time is up.
    fn end_late(&self, now: Instant) {
        for _ in 0..BATCH {
            let mut places = self.places.lock();
            let late = match places.deadlines.first() {
                Some((until, place)) if *until <= now => *place,
                _ => return,
            };
            let late = places.remove(late);
            // Closed outside the lock, and not watched from then on.
            drop(places);
            drop(late);
            self.parked.dec();
        }
    }

    /// Ends everybody, now and from now on.
    fn close(&self) {
        let parked = {
            let mut places = self.places.lock();
            places.is_closed = true;
            places.deadlines.clear();
            std::mem::take(&mut places.parked)
        };
        self.parked
            .sub(i64::try_from(parked.len()).unwrap_or(i64::MAX));
    }
}

impl<T> Places<T> {
    fn remove(&mut self, place: usize) -> Option<Parked<T>> {
        let parked = self.parked.try_remove(place)?;
        self.deadlines.remove(&(parked.until, place));
        if self.parked.is_empty() {
            // There may have been very many.
            self.parked.shrink_to_fit();
        }
        Some(parked)
    }
}

impl<T: Park> Attendant<T> {
    /// The lot.
    pub(super) fn lot(&self) -> &Arc<Lot<T>> {
        &self.0
    }

    /// Waits until connections have something to say, and hands them over. Ends meanwhile those whose
    /// deadline comes. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the system does not say who has something to say.
    pub(super) async fn next(&mut self) -> io::Result<Vec<T>> {
        let lot = &*self.0;
        loop {
            let (deadline, now) = (lot.deadline(), Instant::now());
            if deadline.is_some_and(|deadline| deadline <= now) {
                // Who spoke in time is heard, however late it is looked.
                if let Some(woken) = lot.woken()? {
                    return Ok(woken);
                }
                lot.end_late(now);
                // There may be very many.
                tokio::task::yield_now().await;
                continue;
            }
            let mut ready = tokio::select! {
                ready = lot.epoll.readable() => ready?,
                () = lot.hurry.notified() => continue,
                () = at(deadline) => continue,
            };
            match lot.woken()? {
                // There may be more than were asked for.
                Some(woken) => return Ok(woken),
                None => ready.clear_ready(),
            }
        }
    }
}

impl<T: Park> Drop for Attendant<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[allow(
    unsafe_code,
    reason = "the runtime asks for a promise about the descriptor"
)]
fn register(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and names the same thing as long as it lives, and here nobody replaces it.
    let registered = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const LATER: Duration = Duration::from_secs(3600);

    struct Socket(UnixStream, usize);

    impl Park for Socket {
        fn socket(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn let_go(&self) {}
    }

    fn lot() -> (Attendant<Socket>, Arc<Lot<Socket>>, IntGauge) {
        let parked = IntGauge::new("parked", "Parked connections.").unwrap();
        let attendant = Lot::open(parked.clone()).unwrap();
        let lot = attendant.lot().clone();
        (attendant, lot, parked)
    }

    /// Parks a socket; what is returned is the client's end.
    fn park(lot: &Lot<Socket>, number: usize, patience: Duration) -> UnixStream {
        let (client, server) = UnixStream::pair().unwrap();
        let until = Instant::now() + patience;
        lot.park(Socket(server, number), until).unwrap();
        client
    }

    async fn next(attendant: &mut Attendant<Socket>) -> Vec<usize> {
        let next = tokio::time::timeout(SOON, attendant.next()).await;
        let mut numbers: Vec<usize> = next
            .unwrap()
            .unwrap()
            .iter()
            .map(|socket| socket.1)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    fn is_closed(mut client: UnixStream) -> bool {
        client.set_nonblocking(true).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    }

    #[tokio::test]
    async fn who_has_something_to_say_is_handed_over_and_nobody_else() {
        let (mut attendant, lot, parked) = lot();
        let mut clients: Vec<_> = (0..3).map(|number| park(&lot, number, LATER)).collect();
        assert_eq!(parked.get(), 3);
        clients[1].write_all(b"x").unwrap();
        assert_eq!(next(&mut attendant).await, [1]);
        // To say goodbye is to say something.
        drop(clients.remove(2));
        assert_eq!(next(&mut attendant).await, [2]);
        assert_eq!(parked.get(), 1);
    }

    #[tokio::test]
    async fn what_was_said_before_parking_is_not_missed() {
        let (mut attendant, lot, _) = lot();
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"x").unwrap();
        let until = Instant::now() + LATER;
        lot.park(Socket(server, 7), until).unwrap();
        assert_eq!(next(&mut attendant).await, [7]);
    }

    #[tokio::test]
    async fn a_connection_can_be_parked_again_in_the_place_of_another() {
        let (mut attendant, lot, parked) = lot();
        let mut first = park(&lot, 1, LATER);
        for _ in 0..3 {
            first.write_all(b"x").unwrap();
            let mut woken = attendant.next().await.unwrap();
            let mut socket = woken.pop().unwrap();
            assert_eq!(socket.1, 1);
            socket.0.read_exact(&mut [0]).unwrap();
            // The place is taken by another that says nothing.
            let other = park(&lot, 2, LATER);
            lot.park(socket, Instant::now() + LATER).unwrap();
            drop(other);
            assert_eq!(next(&mut attendant).await, [2]);
        }
        assert_eq!(parked.get(), 1);
    }

    #[tokio::test]
    async fn more_than_fit_into_one_go_are_handed_over_in_several() {
        let (mut attendant, lot, parked) = lot();
        let mut clients: Vec<_> = (0..BATCH + 10)
            .map(|number| park(&lot, number, LATER))
            .collect();
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        let mut all = Vec::new();
        while all.len() < clients.len() {
            all.extend(next(&mut attendant).await);
        }
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..clients.len()));
        assert_eq!(parked.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_in_time_is_closed_and_the_others_stay() {
        let (mut attendant, lot, parked) = lot();
        let mut patient = park(&lot, 1, LATER);
        let waiting = tokio::time::timeout(SOON, attendant.next());
        assert!(waiting.await.is_err());
        let (hasty, also) = (park(&lot, 2, SOON / 4), park(&lot, 3, SOON / 2));
        let waiting = tokio::time::timeout(SOON / 3, attendant.next());
        assert!(waiting.await.is_err());
        assert!(is_closed(hasty));
        assert_eq!(parked.get(), 2);
        let waiting = tokio::time::timeout(SOON / 3, attendant.next());
        assert!(waiting.await.is_err());
        assert!(is_closed(also));
        tokio::time::resume();
        patient.write_all(b"x").unwrap();
        assert_eq!(next(&mut attendant).await, [1]);
    }

    /// A deadline before all others is heard of while the attendant waits for those.
    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_comes_first_is_kept_although_it_was_told_last() {
        let (mut attendant, lot, _) = lot();
        let _patient = park(&lot, 1, LATER);
        let mut waiting = std::pin::pin!(attendant.next());
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let hasty = park(&lot, 2, SOON);
        assert!(tokio::time::timeout(2 * SOON, waiting).await.is_err());
        assert!(is_closed(hasty));
    }

    #[tokio::test(start_paused = true)]
    async fn who_spoke_in_time_is_heard_although_it_was_looked_too_late() {
        let (mut attendant, lot, parked) = lot();
        let mut hasty = park(&lot, 1, SOON / 4);
        let silent = park(&lot, 2, SOON / 4);
        hasty.write_all(b"x").unwrap();
        tokio::time::advance(SOON).await;
        assert_eq!(next(&mut attendant).await, [1]);
        let waiting = tokio::time::timeout(SOON, attendant.next());
        assert!(waiting.await.is_err());
        assert!(is_closed(silent));
        assert_eq!(parked.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_end_in_one_go_end_all_the_same() {
        let (mut attendant, lot, parked) = lot();
        let clients: Vec<_> = (0..2 * BATCH + 10)
            .map(|number| park(&lot, number, SOON / 4))
            .collect();
        let waiting = tokio::time::timeout(SOON, attendant.next());
        assert!(waiting.await.is_err());
        assert!(clients.into_iter().all(is_closed));
        assert_eq!(parked.get(), 0);
    }

    #[tokio::test]
    async fn without_an_attendant_nobody_stays() {
        let (attendant, lot, parked) = lot();
        let before = park(&lot, 1, LATER);
        drop(attendant);
        assert!(is_closed(before));
        assert!(is_closed(park(&lot, 2, LATER)));
        assert_eq!(parked.get(), 0);
    }
}

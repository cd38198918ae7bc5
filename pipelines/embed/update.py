"""One update of an index: what it starts from, and how often it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

from pipelines.embed.config import EmbedConfig
from pipelines.embed.inputs import Listing, check_output, update_options
from pipelines.embed.model import Network, check_same_model, complete, load_network
from pipelines.metrics import Laps
from pipelines.progress import announce, status_line
from retrieval.errors import MismatchError, VacuumedError
from retrieval.gallery.labels import labeller
from retrieval.index import Index, UpdateOptions, is_index, open_index
from retrieval.storage import check_writable

__all__ = ["Attempts", "Update", "start"]

# Whose work is removed again and again works beside `vacuum --force`, which is not meant for that.
_MOST_VACUUMED = 3


@dataclass(frozen=True, kw_only=True)
class Update:
    """Gallery, network and index as they are when an update begins.

    Attributes:
        photos: Address of the gallery.
        index: Address of the index.
        asked: The settings as they were given.
        config: The settings with nothing left open.
        label: The label of an image, by its id.
        network: By which it embeds.
        seen: The version that is current; None for a new index.
        listing: The gallery's files.
        options: Settings of this one update.
        laps: Where the time of its steps is told.
    """

    photos: str
    index: str
    asked: EmbedConfig
    config: EmbedConfig
    label: Callable[[str], str | None]
    network: Network
    seen: Index | None
    listing: Listing
    options: UpdateOptions
    laps: Laps

    def again(self) -> Update:
        """The same update of what gallery and index are now."""
        seen = check_output(self.index)
        listing = Listing(self.photos, follow_links=self.config.follow_links)
        options = update_options(listing, seen, self.network, self.config)
        return replace(self, seen=seen, listing=listing, options=options)


def start(
    photos: str,
    index: str,
    config: EmbedConfig,
    *,
    network: Network | None = None,
    writes: bool = True,
) -> Update:
    """Begin to list a gallery, and load the network.

    Args:
        photos: Absolute address of the gallery.
        index: Absolute address of the index.
        config: Settings.
        network: The network that the settings mean, where it is loaded already.
        writes: Whether the index is to be written; then that is tried.

    Raises:
        RetrievalError: something is missing, or the model is another one than that of the index;
            see the head of the package.
    """
    laps = Laps()
    seen = check_output(index)
    if writes:
        check_writable(index)
    asked, config = config, complete(config, seen)
    label, listing = labeller(config.labels), Listing(photos, follow_links=config.follow_links)
    laps.end("list")
    check_same_model(config, seen, None, listing.count)
    if network is None:
        with status_line(f"loading {config.model or config.network}"):
            network = load_network(config)
        laps.end("load_model")
    return Update(
        photos=photos,
        index=index,
        asked=asked,
        config=config,
        label=label,
        network=network,
        seen=seen,
        listing=listing,
        options=update_options(listing, seen, network, config),
        laps=laps,
    )


class Attempts:
    """An update, tried until it is committed: a vacuum may take work away before that.

    With `rebase` it also goes on where another run has committed meanwhile. Any other error ends
    the loop.

    Example:
        for attempt in Attempts(start(photos, index, config)):
            with attempt as update:
                publish(prepare(update, executor))
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._num_vacuumed = 0
        self._is_done = False

    def __iter__(self) -> Iterator[Attempts]:
        yield self
        while not self._is_done:
            self._update = self._update.again()
            yield self

    def __enter__(self) -> Update:
        return self._update

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, VacuumedError):
            self._num_vacuumed += 1
            if self._num_vacuumed == _MOST_VACUUMED:
                return False
            announce(f"{error} Embedding what is gone once more.")
            return True
        if isinstance(error, MismatchError):
            if not (self._update.config.rebase and _is_overtaken(self._update)):
                return False
            announce(f"{error} Going on from there, as `rebase` asks.")
            return True
        self._is_done = error is None
        return False


def _is_overtaken(update: Update) -> bool:
    seen = update.seen
    return is_index(update.index) and (
        seen is None or open_index(update.index).version != seen.version
    )

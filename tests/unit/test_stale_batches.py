"""Which batch may be asked for because its study seems to be through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ingester.batches import Batches, BatchLimits
from ingester.items import Directory, Instance, Root, StudyBatch
from ingester.reading_order import FURTHEST
from tests.unit.road import instance

ROOT_ID = instance(1).file.directory.root.root_id


def ids(batches: Sequence[StudyBatch]) -> list[list[int]]:
    return [[each.file.file_id for each in batch.instances] for batch in batches]


def of_root(one: Instance, root_id: int) -> Instance:
    directory = Directory(9, Root(root_id, b"other", b"/other"), b"")
    return one._replace(file=one.file._replace(directory=directory))


def come(batches: Batches, number: int, instances: Sequence[Instance]) -> list[StudyBatch]:
    """This list of a root comes; what is stale after each of its instances."""
    root_id = instances[0].file.directory.root.root_id
    batches.reading(root_id, number)
    stale: list[StudyBatch] = []
    for one in instances:
        batches.add(one, 0)
        stale += batches.stale(root_id)
    batches.read(root_id, number)
    return stale


class OneByOne(Batches):
    """Each instance is a list of its own."""

    def __init__(self, limits: BatchLimits, max_open: int) -> None:
        super().__init__(limits, max_open)
        self.lists = Counter[int]()

    def add(self, instance: Instance, now: float) -> list[StudyBatch]:
        root_id = instance.file.directory.root.root_id
        self.lists[root_id] += 1
        self.reading(root_id, self.lists[root_id])
        complete = super().add(instance, now)
        self.read(root_id, self.lists[root_id])
        return complete


class TestABatch:
    def test_that_no_longer_grows_may_be_asked_for(self) -> None:
        """What is open beside it came since: its study is through."""
        batches = OneByOne(BatchLimits(10_000, 3), 100)
        studies = ["1.1", "1.1", "1.2", "1.2", "1.2", "1.3", "1.4", "1.4"]
        stale = []
        for file_id, study in enumerate(studies, 1):
            batches.add(instance(file_id, study), 0)
            stale.append(ids(batches.stale(ROOT_ID)))
        assert stale == [[], [], [[1, 2]], [], [], [], [[6]], []]
        assert ids(batches.flush()) == [[7, 8]]

    def test_of_a_study_that_fits_into_it_may_be_asked_for_when_the_next_ones_have_come(
        self,
    ) -> None:
        """Nothing else would close it, and open ones would hold all of the memory."""
        batches = OneByOne(BatchLimits(1 << 20, 500), 50_000)
        stale, most = [], 0
        for file_id in range(1, 4_000):
            batches.add(instance(file_id, f"1.{file_id // 400}"), 0)
            most = max(most, batches.instances)
            stale += batches.stale(ROOT_ID) if batches.instances > 1_200 else []
        assert most == 1_201
        assert [batch.study_instance_uid for batch in stale] == [f"1.{n}" for n in range(7)]

    def test_of_a_study_whose_last_list_was_overtaken_may_be_asked_for(self) -> None:
        """Nothing went out otherwise, until no request had been under way for a while."""
        batches = OneByOne(BatchLimits(1 << 20, 500), 50_000)
        files = [*range(336), *range(400, 464), *range(336, 400), *range(464, 4_000)]
        stale = []
        for file_id in files:
            batches.add(instance(file_id + 1, f"1.{file_id // 400}"), 0)
            stale += batches.stale(ROOT_ID) if batches.instances > 700 else []
        assert [batch.study_instance_uid for batch in stale[:3]] == ["1.0", "1.1", "1.2"]

    def test_of_a_study_may_not_before_the_list_after_its_last_has_come(self) -> None:
        """Readers overtake each other: its other files may be in the hands of one of them."""
        batches = Batches(BatchLimits(1 << 20, 500), 50_000)
        come(batches, 1, [instance(1, "1.1")])
        many = [instance(file_id, "1.2") for file_id in range(2, 100)]
        assert come(batches, 3, many) == []
        assert batches.stale(ROOT_ID) == []
        assert come(batches, 2, [instance(100, "1.2")]) == []
        assert ids(batches.stale(ROOT_ID)) == [[1]]

    def test_of_a_study_whose_lists_came_in_another_order_may_not_before(self) -> None:
        batches = Batches(BatchLimits(1 << 20, 500), 50_000)
        come(batches, 2, [instance(1, "1.1")])
        come(batches, 1, [instance(2, "1.1")])
        assert come(batches, 4, [instance(file_id, "1.2") for file_id in range(3, 100)]) == []
        assert batches.stale(ROOT_ID) == []
        come(batches, 3, [instance(100, "1.2")])
        assert ids(batches.stale(ROOT_ID)) == [[1, 2]]

    def test_of_a_study_that_went_on_in_another_root_is_judged_by_its_lists(self) -> None:
        batches = Batches(BatchLimits(1 << 20, 500), 50_000)
        for number in range(1, 10):
            come(batches, number, [instance(number, "1.1")])
        come(batches, 1, [of_root(instance(10, "1.1"), ROOT_ID + 1)])
        come(batches, 2, [of_root(instance(11, "1.2"), ROOT_ID + 1)])
        assert [len(each) for each in ids(batches.stale(ROOT_ID + 1))] == [10]

    def test_of_a_root_with_a_file_that_hangs_may_in_the_end(self) -> None:
        batches = Batches(BatchLimits(1 << 20, 500), 50_000)
        early = []
        for number in range(2, 2 * FURTHEST):
            early += come(batches, number, [instance(number, f"1.{number}")])
        assert len(early) > FURTHEST // 2

    def test_that_grows_by_turns_with_others_may_not(self) -> None:
        """Studies that are spread over all directories would go out file by file."""
        batches = OneByOne(BatchLimits(10_000, 100), 1000)
        for file_id in range(1, 400):
            batches.add(instance(file_id, f"1.{file_id % 20}"), 0)
            if batches.instances > 30:
                assert batches.stale(ROOT_ID) == []

    def test_of_a_study_that_comes_back_in_every_directory_may_a_few_times_only(self) -> None:
        """A directory holds more than what may be open, so each study seems to be through."""
        batches = OneByOne(BatchLimits(1 << 30, 500), 50_000)
        early: list[int] = []
        for file_id in range(50_000):
            batches.add(instance(file_id, f"1.{file_id % 400 // 2}"), 0)
            if batches.instances > 240 and batches.stale(ROOT_ID):
                early.append(file_id)
        assert 50 < len(early) < 300
        assert max(early) < 800

    def test_of_a_study_that_comes_back_after_as_many_as_may_be_open_may_once_only(self) -> None:
        batches = OneByOne(BatchLimits(1 << 30, 500), 50_000)
        early = 0
        for file_id in range(80_000):
            batches.add(instance(file_id, f"1.{file_id % 20_000}"), 0)
            if batches.instances > 240:
                early += len(batches.stale(ROOT_ID))
        assert early < 25_000

    def test_of_one_study_in_twenty_that_comes_back_may_all_the_time(self) -> None:
        batches = OneByOne(BatchLimits(1 << 30, 500), 50_000)
        early = [0, 0]
        for file_id in range(50_000):
            study = file_id // 50
            study -= 10 if study % 20 == 0 else 0
            batches.add(instance(file_id, f"1.{study}"), 0)
            if batches.instances > 240:
                early[file_id // 25_000] += len(batches.stale(ROOT_ID))
        assert min(early) > 480

    def test_of_studies_that_no_longer_come_back_may_again(self) -> None:
        """What the order of a root was says little of its next hundred thousand files."""
        batches = OneByOne(BatchLimits(1 << 30, 500), 50_000)
        early = 0
        for file_id in range(200_000):
            study = file_id % 400 // 2 if file_id < 50_000 else file_id // 50
            batches.add(instance(file_id, f"1.{study}"), 0)
            if batches.instances > 240:
                early += len(batches.stale(ROOT_ID))
        assert early > 1_800

    def test_of_a_study_that_comes_back_in_another_root_may_a_few_times_only(self) -> None:
        """A study may have begun in one source and go on in another."""
        batches = OneByOne(BatchLimits(1 << 30, 500), 50_000)
        early = 0
        for file_id in range(20_000):
            one = instance(file_id, f"1.{file_id % 400 // 2}")
            if file_id // 400 % 2:
                one = of_root(one, ROOT_ID + 1)
            batches.add(one, 0)
            if batches.instances > 240:
                early += len(batches.stale(one.file.directory.root.root_id))
        assert early < 600

    def test_of_a_slow_root_may_not_for_what_a_fast_one_brings(self) -> None:
        """Its study would go out file by file."""
        batches = OneByOne(BatchLimits(10_000, 100), 1000)
        slow_id = ROOT_ID + 1
        for file_id in range(1, 400):
            if file_id % 50:
                batches.add(instance(file_id, f"1.{file_id // 90}"), 0)
            else:
                batches.add(of_root(instance(file_id, "2.1"), slow_id), 0)
                assert batches.stale(slow_id) == []
        for file_id in range(400, 1100):
            batches.add(instance(file_id, "1.9"), 0)
        assert len(ids(batches.stale(ROOT_ID))[0]) > 80
        assert batches.stale(slow_id) == []

    def test_of_one_file_may_too(self) -> None:
        """An archive of single images would be read twice."""
        batches = OneByOne(BatchLimits(10_000, 100), 1000)
        early = 0
        for file_id in range(1, 400):
            batches.add(instance(file_id, f"1.{file_id}"), 0)
            early += len(batches.stale(ROOT_ID)) if batches.instances > 20 else 0
        assert early == 399 - 20


def state_of(batches: Batches) -> object:
    """All that decides what is complete, due or stale."""
    growing = {
        root_id: (
            each_root.come,
            [(study, each.grown_at, each.list_number) for study, each in each_root.batches.items()],
        )
        for root_id, each_root in batches._growing.items()
    }
    opened = [(study, each.opened_at, each.size) for study, each in batches._open.items()]
    return batches.instances, opened, growing, list(batches._sent_early)


class TestAList:
    @given(
        st.lists(
            st.lists(st.tuples(st.integers(1, 3), st.integers(0, 400)), max_size=20), max_size=8
        ),
        st.integers(1, 2000),
        st.integers(1, 10),
        st.integers(1, 20),
    )
    def test_makes_the_batches_that_its_instances_make_one_by_one(
        self, lists: list[list[tuple[int, int]]], max_bytes: int, max_count: int, max_open: int
    ) -> None:
        at_once, alone = (Batches(BatchLimits(max_bytes, max_count), max_open) for _ in range(2))
        for number, files in enumerate(lists):
            root_id, left = number % 2, list[Instance]()
            for file_id, (study, size) in enumerate(files, 100 * number):
                left.append(of_root(instance(file_id, f"1.{study}", size=size), root_id))
            for batches in (at_once, alone):
                batches.reading(root_id, number // 2 + 1)
            while left:
                added, complete = at_once.add_all(left, number)
                complete_alone = [alone.add(one, number) for one in left[:added]]
                assert not any(complete_alone[:-1])
                assert complete_alone[-1] == complete
                assert complete or added == len(left)
                assert state_of(at_once) == state_of(alone)
                left = left[added:]
            for batches in (at_once, alone):
                batches.read(root_id, number // 2 + 1)
            assert at_once.stale(root_id) == alone.stale(root_id)
        assert at_once.flush() == alone.flush()

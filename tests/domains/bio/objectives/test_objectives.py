"""Computed properties against textbook values and the formulas written out."""

import cmath
import inspect
import math
import random
import time

import numpy as np
import pytest

from core.errors import UserError
from domains.bio.alphabet import AMINO_ACIDS, reverse_complement
from domains.bio.objectives import registry
from domains.bio.objectives._molecule import molecule
from domains.bio.objectives.hydrophobic_moment import HydrophobicMoment
from domains.bio.objectives.net_charge import NetCharge

MELITTIN = "GIGAVLKVLTTGLPALISWIKRKRQQ"
MAGAININ = "GIGKFLHSAKKFGKAFVGEIMNS"
PRIMER = "CGTTGATCAAGTTCAGGC"

# (objective, arguments, sequence, value, tolerance); how each value was found stands beside it.
KNOWN = [
    ("gravy", (), "I", 4.5, 1e-12),  # Kyte-Doolittle, by definition
    ("gravy", (), "IR", 0.0, 1e-12),
    ("gravy", (), "AGK", (1.8 - 0.4 - 3.9) / 3, 1e-12),
    ("molecular_weight", (), "G", 75.07, 0.01),  # glycine
    ("molecular_weight", (), "GG", 132.12, 0.01),  # glycylglycine
    ("molecular_weight", (), MELITTIN, 2847.5, 0.2),  # melittin acid: the amide weighs 2846.5
    ("molecular_weight", (), MAGAININ, 2466.9, 0.2),  # magainin 2
    ("net_charge", ("7.0",), "K" * 10, 10.0, 0.3),  # ten amines and both termini near cancelling
    ("net_charge", ("7.0",), "D" * 10, -10.0, 0.3),
    ("net_charge", ("0",), "DE", 1.0, 0.01),  # only the amino terminus is charged
    ("net_charge", ("14",), "KR", -1.0, 0.05),  # only the carboxyl terminus is, arginine nearly
    ("instability_index", (), "GG", 10 / 2 * 13.34, 1e-9),  # Guruprasad weight of GG
    ("instability_index", (), "AAAA", 10 / 4 * 3 * 1.0, 1e-9),
    ("tpsa", (), "G", 63.32, 0.01),  # glycine, PubChem 63.3
    ("tpsa", (), "GG", 92.42, 0.01),  # glycylglycine, PubChem 92.4
    ("logp", (), "G", -0.9703, 1e-3),  # Wildman-Crippen of NCC(=O)O as RDKit documents it
    ("hydrophobic_moment", (), "I", 1.38, 1e-12),  # one residue: its own value
    ("hydrophobic_moment", ("0",), "IL", (1.38 + 1.06) / 2, 1e-12),
    ("hydrophobic_moment", ("180",), "IL", (1.38 - 1.06) / 2, 1e-12),
    ("gc_content", (), "GGCA", 0.75, 1e-12),
    ("gc_content", (), "ATAT", 0.0, 1e-12),
]


@pytest.mark.parametrize(("key", "arguments", "sequence", "value", "tolerance"), KNOWN)
def test_known_values(key, arguments, sequence, value, tolerance):
    assert registry.get(key)(*arguments).score([sequence])[0] == pytest.approx(value, abs=tolerance)


def test_isoelectric_point_is_where_the_charge_vanishes():
    points = registry.get("isoelectric_point")().score([MAGAININ, MELITTIN, "DDEEK"])
    for sequence, point in zip([MAGAININ, MELITTIN, "DDEEK"], points, strict=True):
        if point > 4.06:
            charge = NetCharge(f"{min(point, 14.0):.6f}").score([sequence])[0]
            assert abs(charge) < 0.02 or point > 11.9
    assert points[0] > 9 and points[1] > 11 and points[2] < 5


@pytest.mark.parametrize(("angle", "window"), [("100", "all"), ("160", "5"), ("100", "11"), ("100", "99"), ("90", "1")])
def test_hydrophobic_moment_is_the_formula(angle, window):
    from domains.bio.objectives.hydrophobic_moment import _SCALE

    assert set(_SCALE) == set(AMINO_ACIDS)

    def moment(piece):
        turn = math.radians(float(angle))
        return abs(sum(_SCALE[a] * cmath.exp(1j * n * turn) for n, a in enumerate(piece))) / len(piece)

    width = len(MELITTIN) if window == "all" else min(int(window), len(MELITTIN))
    want = max(moment(MELITTIN[i : i + width]) for i in range(len(MELITTIN) - width + 1))
    assert HydrophobicMoment(angle, window).score([MELITTIN])[0] == pytest.approx(want, abs=1e-10)


def test_an_amphipathic_helix_has_a_larger_moment_than_its_shuffle():
    helix = "LKKLLKLLKKLLKL"
    plain, ordered = HydrophobicMoment().score([helix, "".join(sorted(helix))])
    assert plain > 2 * ordered


COMPUTED = [key for key in registry.keys() if registry.get(key).data is None]


@pytest.mark.parametrize("key", COMPUTED)
def test_every_objective_keeps_the_contract(key):
    member = registry.get(key)
    objective = member()
    assert member.unit and member.source and member.paper.title and member.direction in ("max", "min")
    assert all(p.default is not inspect.Parameter.empty for p in inspect.signature(member).parameters.values())
    proteins, dna = (MAGAININ, "C" * 5, MELITTIN), (PRIMER, "C" * 8, "ACGT" * 9)
    first, short, second = dna if member.kind == "dna" else proteins
    batch = [first, "", "AXA", "aaa", "A-A", short, second, first]
    scores = objective.score(batch)
    assert scores.dtype == np.float64 and scores.shape == (len(batch),)
    assert np.isnan(scores[1:5]).all() and np.isfinite(scores[[0, 5, 6, 7]]).all()
    alone = np.concatenate([objective.score([sequence]) for sequence in batch])
    np.testing.assert_array_equal(scores, alone)
    assert objective.score([]).shape == (0,)


def test_instability_needs_two_residues():
    scores = registry.get("instability_index")().score(["A", "AA"])
    assert np.isnan(scores[0]) and np.isfinite(scores[1])


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("net_charge", ("acid",)),
        ("net_charge", ("15",)),
        ("net_charge", ("nan",)),
        ("hydrophobic_moment", ("400",)),
        ("hydrophobic_moment", ("100", "0")),
        ("hydrophobic_moment", ("100", "wide")),
    ],
)
def test_bad_arguments_are_refused_by_name(key, arguments):
    with pytest.raises(UserError, match=key):
        registry.get(key)(*arguments)


def test_melting_is_the_sum_over_neighbours():
    # Allawi and SantaLucia 1997, kcal/mol and cal/(mol K); each pair read on either strand.
    pairs = {
        "AA": (-7.9, -22.2), "AT": (-7.2, -20.4), "TA": (-7.2, -21.3), "CA": (-8.5, -22.7), "GT": (-8.4, -22.4),
        "CT": (-7.8, -21.0), "GA": (-8.2, -22.2), "CG": (-10.6, -27.2), "GC": (-9.8, -24.4), "GG": (-8.0, -19.9),
    }  # fmt: skip
    ends = {"A": (2.3, 4.1), "T": (2.3, 4.1), "G": (0.1, -2.8), "C": (0.1, -2.8)}
    found = [pairs.get(PRIMER[i : i + 2]) or pairs[reverse_complement(PRIMER[i : i + 2])] for i in range(17)]
    enthalpy, entropy = (sum(part) for part in zip(*found, ends[PRIMER[0]], ends[PRIMER[-1]], strict=True))
    entropy += 0.368 * 17 * math.log(0.05)
    kelvin = 1000 * enthalpy / (entropy + 1.987 * math.log((25 - 25 / 2) * 1e-9))
    assert registry.get("melting_temperature")().score([PRIMER])[0] == pytest.approx(kelvin - 273.15, abs=0.01)


def test_melting_knows_short_dna_only():
    scores = registry.get("melting_temperature")().score(["ACGTACG", "ACGTACGT", "A" * 60, "A" * 61])
    assert np.isnan(scores).tolist() == [True, False, False, True]


def test_a_thousand_sequences_take_less_than_a_second():
    source = random.Random(0)
    for key in COMPUTED:
        if key in ("tpsa", "logp"):
            continue
        objective = registry.get(key)()
        letters = AMINO_ACIDS if objective.kind == "protein" else "ACGT"
        sequences = ["".join(source.choices(letters, k=source.randrange(5, 50))) for _ in range(1000)]
        objective.score(sequences[:1])
        start = time.process_time()
        objective.score(sequences)
        assert time.process_time() - start < 1, key


def test_a_molecule_is_built_once_for_all_descriptors():
    molecule.cache_clear()
    registry.get("tpsa")().score([MAGAININ])
    registry.get("logp")().score([MAGAININ])
    assert (molecule.cache_info().misses, molecule.cache_info().hits) == (1, 1)

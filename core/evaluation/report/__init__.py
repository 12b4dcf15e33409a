"""The self-contained HTML report: tables, text, links and plots of our own."""

from core.evaluation.report.report import Report
from core.evaluation.report.svg import Svg

__all__ = ["Report", "Svg"]

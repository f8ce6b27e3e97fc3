"""Run with: python3 -m unittest discover examples/dengue"""

import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import fields
from pathlib import Path

import evaluate
import generate_data
import model
import options
from linear import fit_ridge, solve
from options import Options, read_options, read_yaml
from tables import MONTHLY, WEEKLY, InputError, read_period, read_table

HERE = Path(__file__).parent
COLUMNS = ["time_period", "location", "disease_cases", "population", "rainfall", "mean_temperature"]


def months(count, first_year=2015):
    return [f"{first_year + at // 12}-{at % 12 + 1:02}" for at in range(count)]


def weeks(count):
    return [f"{2015 + at // 52}-W{at % 52 + 1:02}" for at in range(count)]


def rows_of(periods, locations=("A", "B"), **overrides):
    """Rows in the server's shape; an override gives a column's value, or a function of the row number."""
    chance = random.Random(5)
    rows = []
    for location in locations:
        for at, period in enumerate(periods):
            row = {
                "time_period": period,
                "location": location,
                "disease_cases": chance.randint(0, 40),
                "population": 100_000,
                "rainfall": round(chance.uniform(0, 300), 1),
                "mean_temperature": round(chance.uniform(18, 31), 2),
            }
            row.update({name: value(at) if callable(value) else value for name, value in overrides.items()})
            rows.append(row)
    return rows


class Folder(unittest.TestCase):
    """A test with an empty folder to write files to."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def write_table(self, name, rows, without=()):
        columns = [column for column in (rows[0] if rows else COLUMNS) if column not in without]
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return str(path)

    def table(self, rows, without=(), covariates=options.CLIMATE):
        return read_table(self.write_table("table.csv", rows, without), covariates)

    def forecast(self, training, historic, future, chosen=Options(n_samples=20), without=()):
        """Trains, saves, loads and predicts, as the two scripts do."""
        trained = model.train(self.table(training, without), chosen)
        saved = str(self.folder / "model")
        model.save(trained, saved)
        loaded = model.load(saved)
        self.assertEqual(loaded, trained)
        future_table = self.table(future, ("disease_cases", *without))
        samples = model.predict(loaded, self.table(historic, without), future_table, chosen)
        self.assertEqual(len(samples), len(future))
        for drawn in samples:
            self.assertEqual(len(drawn), chosen.n_samples)
            for value in drawn:
                self.assertIsInstance(value, int)
                self.assertGreaterEqual(value, 0)
        return samples


class Forecasting(Folder):
    def setUp(self):
        super().setUp()
        self.periods = months(60)
        self.training, self.future = rows_of(self.periods[:57]), rows_of(self.periods[57:])

    def check(self, training=None, historic=None, future=None, **more):
        training = self.training if training is None else training
        historic = training if historic is None else historic
        return self.forecast(training, historic, self.future if future is None else future, **more)

    def test_the_same_seed_gives_the_same_samples_and_another_seed_others(self):
        self.assertEqual(self.check(), self.check())
        self.assertNotEqual(self.check(), self.check(chosen=Options(n_samples=20, seed=2)))

    def test_rows_in_another_order_get_the_same_forecasts(self):
        shuffled = self.future[:]
        random.Random(3).shuffle(shuffled)
        keys = [(row["time_period"], row["location"]) for row in self.future]
        expected = dict(zip(keys, self.check()))
        for row, drawn in zip(shuffled, self.check(future=shuffled)):
            self.assertEqual(drawn, expected[row["time_period"], row["location"]])

    def test_missing_cases_are_passed_over(self):
        self.check(rows_of(self.periods[:57], disease_cases=lambda at: "" if at % 3 else 7))

    def test_a_place_without_any_cases_is_forecast_from_the_others(self):
        training = rows_of(self.periods[:57]) + rows_of(self.periods[:57], ["C"], disease_cases="")
        self.check(training, future=rows_of(self.periods[57:], ["C"]))

    def test_missing_covariates_and_populations_are_filled_in(self):
        gaps = {name: lambda at: "" if at % 4 == 1 else 20 + at % 12 for name in COLUMNS[3:]}
        self.check(rows_of(self.periods[:57], **gaps), future=rows_of(self.periods[57:], **gaps))

    def test_absent_covariates_are_left_out(self):
        self.check(without=("rainfall", "mean_temperature", "population"))

    def test_columns_that_never_change_are_left_out(self):
        constant = {"rainfall": 0.1, "mean_temperature": 27.3, "disease_cases": 4}
        samples = self.check(rows_of(self.periods[:57], **constant))
        self.assertEqual({value for drawn in samples for value in drawn}, {4})

    def test_fill_values_and_words_count_as_missing(self):
        written = ["9.96921e+36", "inf", "NaN", "n/a", 30]
        self.check(rows_of(self.periods[:57], rainfall=lambda at: written[at % 5]))

    def test_columns_nobody_asked_for_are_passed_over(self):
        extra = {"": lambda at: at, "remark": "a, b", "rain, last year": 3}
        self.check(rows_of(self.periods[:57], **extra), future=rows_of(self.periods[57:], **extra))

    def test_a_place_training_did_not_see_is_learned_from_its_own_history(self):
        high = rows_of(self.periods[:57], ["New"], disease_cases=lambda at: 4000 + at)
        samples = self.check(self.training, high, rows_of(self.periods[57:], ["New"]))
        for drawn in samples:
            self.assertGreater(evaluate.quantile(drawn, 0.5), 500)

    def test_a_place_without_history_is_forecast_at_the_level_of_the_others(self):
        samples = self.check(self.training, [], rows_of(self.periods[57:], ["New"]))
        for drawn in samples:
            self.assertLess(evaluate.quantile(drawn, 0.5), 100)

    def test_one_place_is_enough(self):
        self.check(rows_of(self.periods[:57], ["A"]), future=rows_of(self.periods[57:], ["A"]))

    def test_short_histories_down_to_one_row_are_enough(self):
        for length in (1, 2, 3, 6, 13):
            with self.subTest(length=length):
                self.check(rows_of(self.periods[57 - length : 57]))
                self.check(rows_of(self.periods[57 - length : 57], ["A"]))

    def test_without_ridge_everything_still_has_an_answer(self):
        for length in (1, 4, 57):
            with self.subTest(length=length):
                self.check(rows_of(self.periods[:length]), chosen=Options(n_samples=20, ridge=0))

    def test_a_horizon_past_the_longest_fitted_one_is_forecast(self):
        self.check(rows_of(self.periods[:24]), future=rows_of(self.periods[24:60]))

    def test_weeks_are_forecast_as_months_are(self):
        for known in (20, 150):
            with self.subTest(known=known):
                periods = weeks(known + 8)
                self.check(rows_of(periods[:known]), future=rows_of(periods[known:]))

    def test_cases_of_the_forecast_months_change_nothing(self):
        leaking = self.training + rows_of(self.periods[57:], disease_cases=100_000)
        self.assertEqual(self.check(self.training, leaking), self.check(self.training, self.training))

    def test_places_that_report_late_are_forecast_from_their_last_report(self):
        late = [row for row in self.training if row["time_period"] < self.periods[54]]
        self.check(self.training, late)

    def test_higher_cases_of_late_raise_the_forecast(self):
        training = rows_of(self.periods[:57], disease_cases=lambda at: 20 + at % 12 + 80 * (at // 12 % 2))
        calm = self.check(training, rows_of(self.periods[45:57], disease_cases=20))
        wild = self.check(training, rows_of(self.periods[45:57], disease_cases=200))
        self.assertGreater(sum(map(sum, wild)), sum(map(sum, calm)))

    def test_absurd_numbers_stay_numbers(self):
        leaping = {"disease_cases": lambda at: 10**14 if at % 2 else 0, "rainfall": lambda at: 1e14 * at}
        absurd = {"population": 1, **leaping}
        self.check(rows_of(self.periods[:57], **absurd), future=rows_of(self.periods[57:], **absurd))

    def test_nothing_to_forecast_is_an_empty_forecast(self):
        self.assertEqual(self.check(future=[]), [])

    def test_nothing_to_learn_from_is_an_error_that_says_so(self):
        for training in ([], rows_of(self.periods, disease_cases="")):
            with self.assertRaisesRegex(InputError, "there are no disease_cases to learn from"):
                model.train(self.table(training), Options())

    def test_weeks_for_a_monthly_model_are_an_error_that_says_so(self):
        with self.assertRaisesRegex(InputError, "trained on monthly data but the future data is weekly"):
            self.check(future=rows_of(weeks(3)))

    def test_an_additional_covariate_that_drives_cases_improves_the_forecast(self):
        humid = {"humidity": lambda at: 40 + (at * 37) % 50}
        cases = {"disease_cases": lambda at: 5 * (40 + ((at - 1) * 37) % 50) - 190}
        rows = rows_of(self.periods, **humid, **cases)
        errors = []
        for additional in ((), ("humidity",)):
            chosen = Options(additional=additional, n_lags=1)
            scores = evaluate.evaluate(self.table(rows, covariates=chosen.covariates), 3, 4, chosen)
            errors.append(sum(scores.crps["the model", 0]))
        self.assertLess(errors[1], 0.7 * errors[0])


class Periods(unittest.TestCase):
    def test_neighbouring_periods_differ_by_one(self):
        for first, second in (("2023-12", "2024-01"), ("2020-W53", "2021-W01"), ("2021-W52", "2022-W1")):
            (calendar, before), (same, after) = read_period(first), read_period(second)
            self.assertIs(calendar, same)
            self.assertEqual(after, before + 1)

    def test_months_and_weeks_are_told_apart(self):
        self.assertIs(read_period("2023-05")[0], MONTHLY)
        self.assertEqual(read_period("202305"), read_period("2023-05"))
        self.assertEqual(read_period("2023-05-31"), read_period("2023-05"))
        self.assertIs(read_period("2023-W05")[0], WEEKLY)
        self.assertEqual(read_period("2023W5"), read_period("2023-W05"))

    def test_the_middle_of_a_period_lies_in_it(self):
        self.assertEqual(str(MONTHLY.middle(read_period("2023-12")[1])), "2023-12-15")
        self.assertEqual(str(WEEKLY.middle(read_period("2023-W05")[1])), "2023-02-02")

    def test_anything_else_is_an_error_that_names_it(self):
        for text in ("", "2023", "2023-13", "2023-00", "2021-W53", "0000-01", "yesterday"):
            with self.assertRaisesRegex(InputError, f"`{text}` is not a time period"):
                read_period(text)


class Tables(Folder):
    def test_an_unreadable_period_is_named_with_its_line(self):
        with self.assertRaisesRegex(InputError, "table.csv, line 3: `soon` is not a time period"):
            self.table(rows_of(["2020-01", "soon"]))

    def test_months_and_weeks_do_not_mix(self):
        with self.assertRaisesRegex(InputError, "line 3: `2020-W01` mixes months and weeks"):
            self.table(rows_of(["2020-01", "2020-W01"]))

    def test_a_missing_key_column_is_named(self):
        with self.assertRaisesRegex(InputError, "table.csv has no column `location`"):
            self.table(rows_of(["2020-01"]), without=("location",))

    def test_a_byte_order_mark_and_short_lines_do_no_harm(self):
        lines = ["\ufefftime_period,location,disease_cases", "2020-01,Đà Nẵng,3", "2020-02,Đà Nẵng"]
        table = read_table(self.write("marked.csv", "\r\n".join(lines)), options.CLIMATE)
        self.assertEqual(list(table.places["Đà Nẵng"].cases.values()), [3.0])
        self.assertEqual(len(table.rows), 2)


class Config(Folder):
    def read(self, text):
        return read_options(self.write("config.yml", text))

    def test_no_config_means_the_defaults(self):
        self.assertEqual(read_options(""), Options())
        self.assertEqual(self.read(""), Options())
        self.assertEqual(self.read("{}"), Options())
        self.assertEqual(self.read("prediction_periods: 3\nuser_option_values: {}\n"), Options())

    def test_options_are_read_from_under_user_option_values(self):
        text = (
            "additional_continuous_covariates:\n- humidity\n- 'ndvi: mean'\n"
            "prediction_periods: 3\n"
            "user_option_values:\n  n_lags: 2\n  n_samples: 50\n  ridge: 2.5\n  seed: 7\n"
        )
        expected = Options(n_samples=50, n_lags=2, ridge=2.5, seed=7, additional=("humidity", "ndvi: mean"))
        self.assertEqual(self.read(text), expected)
        self.assertEqual(self.read(text.replace("- ", "  - ")), expected)

    def test_options_are_read_from_the_top_level(self):
        text = "additional_continuous_covariates: [humidity, \"ndvi\"]\nn_lags: 2  # months\n"
        expected = Options(n_samples=50, n_lags=2, additional=("humidity", "ndvi"))
        self.assertEqual(self.read(text + "n_samples: 50.0\n"), expected)

    def test_values_a_client_nested_itself_are_found(self):
        text = "user_option_values:\n  user_option_values:\n    seed: 4\n  id: 3\n"
        self.assertEqual(self.read(text).seed, 4)

    def test_a_null_option_means_its_default(self):
        self.assertEqual(self.read("n_lags: null\nseed:\nridge: ~\n"), Options())

    def test_what_other_programs_put_there_is_passed_over(self):
        nested = "nested:\n  deep:\n    - a: 1\n      b: 2\n  x: 3\n"
        self.assertEqual(self.read(f"---\n# note\narchived: false\n{nested}odd line\nseed: 9\n").seed, 9)

    def test_json_is_read_too(self):
        self.assertEqual(self.read('{"user_option_values": {"seed": 8}}').seed, 8)

    def test_a_value_out_of_place_is_an_error_that_names_the_option(self):
        for text, message in (
            ("n_lags: many", "option `n_lags` is `many`; expected a number"),
            ("n_lags: 2.5", "option `n_lags` is 2.5; expected a whole number"),
            ("n_samples: 0", "option `n_samples` is 0; expected 1 to 10000"),
            ("ridge: true", "option `ridge` is `True`; expected a number"),
            ("additional_continuous_covariates: humidity", "is not a list"),
        ):
            with self.assertRaisesRegex(InputError, message):
                self.read(text)

    def test_scalars_keep_their_kind(self):
        text = "a: 'it''s: # 1'\nb: \"x\"\nc: 1e-3\nd: -4\ne: yes please\nf: True\n'g h': []\n"
        expected = {"a": "it's: # 1", "b": "x", "c": 0.001, "d": -4, "e": "yes please", "f": True, "g h": []}
        self.assertEqual(read_yaml(text), expected)

    def test_the_defaults_are_those_of_mlproject(self):
        declared = read_yaml((HERE / "MLproject").read_text(encoding="utf-8"))["user_options"]
        for name, option in declared.items():
            self.assertEqual(option["default"], getattr(Options, name), name)
        self.assertEqual([*declared, "additional"], [option.name for option in fields(Options)])


class Regression(unittest.TestCase):
    def test_a_line_is_found_and_a_penalty_flattens_it(self):
        rows = [[1.0, at] for at in range(10)]
        targets = [2 + 3 * at for at in range(10)]
        level, slope = fit_ridge(rows, targets, [0, 0])
        self.assertAlmostEqual(level, 2, places=5)
        self.assertAlmostEqual(slope, 3, places=5)
        self.assertLess(fit_ridge(rows, targets, [0, 500])[1], 1)

    def test_equations_are_solved(self):
        for got, expected in zip(solve([[4, 2], [2, 3]], [10, 8]), (1.75, 1.5)):
            self.assertAlmostEqual(got, expected)

    def test_columns_that_repeat_each_other_share_the_slope(self):
        left, right = fit_ridge([[at, at] for at in range(5)], [2.0 * at for at in range(5)], [0, 0])
        self.assertAlmostEqual(left + right, 2, places=3)


class Scoring(unittest.TestCase):
    def test_one_sample_scores_its_absolute_error(self):
        self.assertEqual(evaluate.crps([7], 4), 3)

    def test_the_score_is_that_of_its_definition(self):
        samples, observed = [1, 4, 4, 9], 5
        between = sum(abs(left - right) for left in samples for right in samples) / 16
        expected = sum(abs(value - observed) for value in samples) / 4 - between / 2
        self.assertAlmostEqual(evaluate.crps(samples, observed), expected)


class Project(Folder):
    def run_script(self, *command):
        return subprocess.run([sys.executable, *command], cwd=self.folder, capture_output=True, text=True)

    def test_the_scripts_run_in_a_copy_of_the_project_as_the_server_runs_them(self):
        for script in HERE.glob("*.py"):
            shutil.copy(script, self.folder)
        for table, name in (("training", "data"), ("historic", "historic"), ("future", "future")):
            shutil.copy(HERE / "data" / f"{table}.csv", self.folder / f"{name}.csv")
        self.write("config.yml", "prediction_periods: 3\nuser_option_values:\n  n_samples: 30\n")

        trained = self.run_script("train.py", "data.csv", "model", "config.yml")
        self.assertEqual((trained.returncode, trained.stderr), (0, ""))
        self.assertIn("case counts of 6 places", trained.stdout)
        json.loads((self.folder / "model").read_text(encoding="utf-8"))
        files = ["model", "historic.csv", "future.csv", "out.csv", "config.yml"]
        predicted = self.run_script("predict.py", *files)
        self.assertEqual((predicted.returncode, predicted.stderr), (0, ""))

        with (self.folder / "out.csv").open(newline="", encoding="utf-8") as file:
            out = list(csv.DictReader(file))
        with (self.folder / "future.csv").open(newline="", encoding="utf-8") as file:
            future = list(csv.DictReader(file))
        self.assertEqual(list(out[0]), ["time_period", "location", *(f"sample_{n}" for n in range(30))])
        keys = [[(row["time_period"], row["location"]) for row in rows] for rows in (out, future)]
        self.assertEqual(keys[0], keys[1])

    def test_an_error_ends_the_script_with_one_sentence(self):
        data = self.write_table("data.csv", rows_of(months(3), disease_cases=""))
        failed = self.run_script(str(HERE / "train.py"), data, "model")
        sentence = "train: there are no disease_cases to learn from\n"
        self.assertEqual((failed.returncode, failed.stderr), (1, sentence))
        self.assertFalse((self.folder / "model").exists())

    def test_the_committed_data_is_what_the_generator_writes(self):
        generate_data.main(self.folder)
        for path in (HERE / "data").glob("*.csv"):
            self.assertEqual((self.folder / path.name).read_text(), path.read_text(), path.name)

    def test_the_model_beats_the_seasonal_baselines_on_the_example(self):
        table = read_table(str(HERE / "data" / "training.csv"), options.CLIMATE)
        crps = evaluate.evaluate(table, 3, 12, Options()).crps
        model_score = sum(crps["the model", 0])
        self.assertLess(model_score, 0.8 * sum(crps["same month, all years", 0]))
        self.assertLess(model_score, 0.6 * sum(crps["same month, last year", 0]))


if __name__ == "__main__":
    unittest.main()

"""Every tab in a real Chromium. Skipped where there is none; `.ci/run` installs it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data import picture
from PIL import Image

pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")
from app.conftest import Server, write_bomb  # noqa: E402
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

import img2img  # noqa: E402
from img2img.cli import main  # noqa: E402
from img2img.images import read_image, write_image  # noqa: E402

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="needs chromium and chromium-driver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1400",
    "--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-proxy-server",
)  # fmt: skip


TABS = {
    "pairs": ["Translate", "Folders", "Draw", "Runs"],
    "labels": ["Translate", "Folders", "Paint labels", "Runs"],
    "classes": ["Explore", "Runs"],
    "codes": ["Explore", "Runs"],
}
"""What a model allows."""


class Page:
    """The page, as somebody uses it."""

    def __init__(self, driver: Any, address: str, downloads: Path) -> None:
        self.driver, self.address, self.downloads = driver, address, downloads

    def open(self, query: str = "") -> None:
        self.driver.get(f"{self.address}/{query}")
        self.find("h1")
        self.wait(lambda: self.tabs(), "tabs")

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        def ask(_: Any) -> Any:
            try:
                return condition()
            except Exception as error:  # of elements that were replaced meanwhile
                if isinstance(
                    error, (StaleElementReferenceException, NoSuchElementException, StopIteration, IndexError)
                ):
                    return None
                raise

        return WebDriverWait(self.driver, seconds, 0.1).until(ask, what)

    def find(self, selector: str) -> Any:
        """The element, as soon as it can be seen and stays where it is: a click would miss what moves."""

        def resting() -> Any:
            shown = next(e for e in self.all(selector) if e.is_displayed())
            before = shown.rect
            time.sleep(0.05)
            return shown if shown.rect == before else None

        return self.wait(resting, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def tabs(self) -> list[str]:
        script = "return [...document.querySelectorAll('button[role=tab]')].filter((e) => e.checkVisibility() && e.tabIndex >= 0 || e.ariaSelected === 'true').map((e) => e.textContent.trim())"
        return list(self.driver.execute_script(script))

    def tab(self, name: str) -> None:
        self.wait(
            lambda: next(e for e in self.all("button[role=tab]") if e.text.strip() == name and e.is_displayed()), name
        ).click()

    def choose_model(self, name: str) -> None:
        self.choose("Model", name)
        self.wait(lambda: self.tabs() == TABS[name], f"the tabs of {name}")

    def choose(self, label: str, name: str) -> None:
        box = self.find(f"input[aria-label='{label}']")
        box.click()
        options = lambda: [e for e in self.all("[role=option]") if e.get_attribute("aria-label") == name]  # noqa: E731
        self.wait(lambda: options()[0], name).click()
        self.wait(lambda: box.get_attribute("value") == name, name)

    def click(self, text: str) -> None:
        def found() -> Any:
            return next(e for e in self.all("button:not([role=tab])") if e.text.strip() == text and e.is_displayed())

        self.wait(found, text).click()

    def upload(self, selector: str, file: Path) -> None:
        field = self.wait(lambda: next(iter(self.all(f"{selector} input[type=file]")), None), selector)
        field.send_keys(str(file))

    def download(self, selector: str, name: str) -> Path:
        """What a link of a file component gives."""
        link = self.wait(
            lambda: next(e for e in self.all(f"{selector} a[download]") if e.get_attribute("download") == name), name
        )
        (self.downloads / name).unlink(missing_ok=True)
        self.driver.execute_script("arguments[0].click()", link)
        file = self.downloads / name
        self.wait(
            lambda: file.is_file() and file.stat().st_size and not list(self.downloads.glob("*.crdownload")), name
        )
        return file

    def message(self) -> str:
        """What an error says."""
        return str(self.find(".toast-body").text)

    def image(self, selector: str, before: str | None = None) -> tuple[str, np.ndarray[Any, Any]]:
        """The address of an image that is shown, another than before, and its pixels."""
        source = self.wait(
            lambda: next(
                (s for e in self.all(f"{selector} img") if (s := e.get_attribute("src")) and s != before), None
            ),
            selector,
        )
        script = """
            const done = arguments[1], image = new Image();
            image.onload = () => { const c = document.createElement("canvas"); c.width = image.naturalWidth; c.height = image.naturalHeight;
              const view = c.getContext("2d"); view.drawImage(image, 0, 0); done([c.height, c.width, ...view.getImageData(0, 0, c.width, c.height).data]); };
            image.src = arguments[0];"""
        height, width, *values = self.driver.execute_async_script(script, source)
        return source, np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    many = "profile.default_content_setting_values.automatic_downloads"
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads), many: 1})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    started.downloads = downloads
    started.set_script_timeout(60)
    yield started
    started.quit()


@pytest.fixture
def page(driver: Any, server: Server) -> Iterator[Page]:
    """The page, opened anew; afterwards, that it asked for nothing from elsewhere, and that no script failed."""
    driver.get_log("performance")
    made = Page(driver, server.address, driver.downloads)
    made.open()
    yield made
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    addresses = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    assert addresses
    foreign = [each for each in addresses if not each.startswith((server.address, "data:", "blob:", "chrome"))]
    assert not foreign
    failed = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in failed if "Content Security" in message or "Uncaught" in message], failed


def test_translate(page: Page, server: Server, tmp_path: Path) -> None:
    write_image(tmp_path / "deep.png", picture(30, 21, 3).astype(np.uint16) * 257 + 3)
    page.choose_model("pairs")
    page.upload("#translate-image", tmp_path / "deep.png")
    page.find("#translate-image img")
    page.find("#translate-start").click()
    made = page.download("#translate-result", "deep.png")
    assert (
        main(
            ["convert", str(tmp_path / "deep.png"), str(tmp_path / "own.png"), "--model", str(server.models / "pairs")]
        )
        == 0
    )
    assert made.read_bytes() == (tmp_path / "own.png").read_bytes() and read_image(made).dtype == np.uint16
    assert len(page.all("#translate-compared img")) == 2  # before and after
    (tmp_path / "text.png").write_text("no image")
    page.find("#translate-image button[aria-label='Remove Image'], #translate-image button[aria-label='Clear']").click()
    page.upload("#translate-image", tmp_path / "text.png")
    page.wait(lambda: page.all("#translate-image img"), "the upload")
    page.find("#translate-start").click()
    assert "text.png" in page.message() and "no image of a known format" in page.message()
    page.find(".toast-close").click()
    (tmp_path / "bomb.png").write_bytes(write_bomb(20_000, 15_000))
    page.find("#translate-image button[aria-label='Remove Image'], #translate-image button[aria-label='Clear']").click()
    page.upload("#translate-image", tmp_path / "bomb.png")
    page.wait(lambda: page.all("#translate-image img"), "the upload")
    page.find("#translate-start").click()
    page.wait(lambda: "300 million pixels" in page.message(), "the sentence")


def test_folders(page: Page, tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", picture(16, 16, 3, seed=number))
    page.choose_model("pairs")
    page.tab("Folders")
    page.upload("#folder-whole", tmp_path / "in")
    page.wait(lambda: len(page.all("#folder-whole tr")) >= 3, "three files")
    page.find("#convert-start").click()
    archive = page.download("#folder-result", "translations.zip")
    shutil.unpack_archive(archive, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png", "report.jsonl"]


def test_draw(page: Page, server: Server) -> None:
    page.choose_model("pairs")
    page.tab("Draw")
    canvas = page.find("#drawing canvas")
    ActionChains(page.driver).move_to_element_with_offset(canvas, -100, -100).click_and_hold().move_by_offset(
        200, 200
    ).release().perform()
    source, made = page.image("#draw-made")
    drawn = page.driver.execute_script(
        "const c = arguments[0]; return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]", canvas
    )
    size = int(canvas.get_attribute("width"))
    drawing = np.array(drawn, np.uint8).reshape(size, size, 4)[..., :3]
    assert set(np.unique(drawing)) == {0, 255} and drawing[size // 2, size // 2].max() == 0
    translator: Any = img2img.load(server.models / "pairs")
    assert (translator(drawing) == made).all()
    page.click("Undo")
    source, again = page.image("#draw-made", source)
    assert (translator(np.full_like(drawing, 255)) == again).all()
    page.choose("Size of the canvas in pixels; another choice clears it", "128")
    page.wait(lambda: page.find("#drawing canvas").get_attribute("width") == "128", "a larger canvas")
    page.find("#drawing canvas").click()
    assert page.image("#draw-made", source)[1].shape == (128, 128, 3)


def test_paint_labels(page: Page, server: Server, tmp_path: Path) -> None:
    page.choose_model("labels")
    page.tab("Paint labels")
    canvas = page.find("#label-map canvas")
    names = [e.text.strip() for e in page.all("#label-map .palette button")]
    assert names == ["0", "1", "2", "3"]
    page.click("Fill")
    page.click("2")
    canvas.click()  # everything is class 2
    page.click("New instance")
    page.click("Brush")
    page.click("3")
    ActionChains(page.driver).move_to_element_with_offset(canvas, -80, -60).click_and_hold().move_by_offset(
        120, 90
    ).release().perform()
    canvas.send_keys(Keys.HOME)  # not a key of the canvas
    page.click("1")
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.SPACE)  # with the keyboard
    time.sleep(1)
    painted = np.asarray(Image.open(page.download("#paint-saved", "labels.png")))
    shown = page.driver.execute_script(
        "const c = arguments[0]; c.blur(); return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
        canvas,
    )
    shown = np.array(shown, np.uint8).reshape(*painted.shape, 4)[..., :3]
    assert set(np.unique(painted)) == {1, 2, 3}
    translator: Any = img2img.load(server.models / "labels")
    instances = np.asarray(Image.open(page.download("#paint-saved", "instances.png")))
    assert set(np.unique(instances)) == {1, 2} and (instances == 2).sum() == (painted != 2).sum()
    inside = np.ones_like(painted, bool)  # where no other instance begins
    inside[:, :-1] &= instances[:, :-1] == instances[:, 1:]
    inside[:-1] &= instances[:-1] == instances[1:]
    colours = translator.config.classes.paint(painted)
    assert (colours == shown)[inside].all() and (colours // 2 == shown)[~inside].all() and not inside.all()
    assert painted[-1, -1] == 2 and painted[painted.shape[0] // 2 + 2, painted.shape[1] // 2] == 1
    page.click("Show styles")
    page.wait(lambda: len(page.all("#paint-styles img")) == 3, "the styles")
    source, made = page.image("#paint-made")
    assert (translator(painted, instances) == made).all()
    page.all("#paint-styles button.thumbnail-item")[2].click()
    _, styled = page.image("#paint-made", source)
    assert (translator(painted, instances, style=2) == styled).all()
    page.find("#paint-begin button").click()
    labels = np.zeros((20, 28), np.uint8)
    labels[5:9] = 3
    Image.fromarray(labels).save(tmp_path / "existing.png")
    page.upload("#paint-existing", tmp_path / "existing.png")
    page.find("#paint-existing img")
    page.click("Load it")
    page.wait(lambda: page.find("#label-map canvas").get_attribute("width") == "28", "the label map")
    page.find("#paint-start").click()
    page.wait(lambda: np.array_equal(np.asarray(Image.open(page.download("#paint-saved", "labels.png"))), labels), "it")


def test_explore(page: Page, server: Server, tmp_path: Path) -> None:
    page.choose_model("classes")
    page.find("#explore-start").click()
    page.wait(lambda: len(page.all("#explore-sheet img")) == 24, "a sheet")
    parent = json.loads(page.download("#explore-saved", "latents.json").read_text())["images"][5]
    page.all("#explore-sheet button.thumbnail-item")[5].click()
    _, chosen = page.image("#explore-chosen")
    page.click("Children of the chosen")
    page.wait(lambda: "the image itself" in page.find("#explore-sheet").text, "children")
    file = page.download("#explore-saved", "latents.json")
    children = json.loads(file.read_text())
    model = str(server.models / "classes")
    assert main(["sample", "--model", model, "--output", str(tmp_path / "out"), "--latents", str(file)]) == 0
    made = [read_image(tmp_path / "out" / f"image{number:04d}.png") for number in range(24)]
    assert (made[0] == chosen).all() and len({image.tobytes() for image in made}) == 24
    link = page.find("#explore-link textarea, #explore-link input").get_attribute("value")
    page.all("#explore-sheet button.thumbnail-item")[7].click()
    page.image("#explore-second")
    page.click("Cross the two")
    page.wait(lambda: "100 %" in page.find("#explore-sheet").text, "the way")
    way = json.loads(page.download("#explore-saved", "latents.json").read_text())["images"]
    assert way[0] == children["images"][7] and way[-1] == parent  # from the chosen to the second
    walk = Image.open(page.download("#explore-saved", "walk.gif"))
    assert walk.n_frames == 46  # type: ignore[attr-defined]
    page.click("Back")
    page.wait(lambda: "child 23" in page.find("#explore-sheet").text, "children again")
    page.driver.get(link)
    page.wait(lambda: "the image itself" in page.find("#explore-sheet").text, "children from the link")
    again = json.loads(page.download("#explore-saved", "latents.json").read_text())
    assert again == children


def test_codes(page: Page) -> None:
    page.choose_model("codes")
    page.find(".code-slider")  # the tabs are those of the model before
    page.find("#explore-start").click()
    page.wait(lambda: len(page.all("#explore-sheet img")) == 24, "a sheet")
    drawn = json.loads(page.download("#explore-saved", "latents.json").read_text())["images"]
    assert {tuple(image["noise"][8:11]) for image in drawn} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    number = page.find(".code-slider input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("2", Keys.TAB)

    def all_alike() -> bool:
        images = json.loads(page.download("#explore-saved", "latents.json").read_text())["images"]
        return {tuple(image["noise"][8:]) for image in images} == {(0, 0, 1, 0)}

    page.wait(all_alike, "a sheet of one code")


def test_runs(page: Page, server: Server) -> None:
    page.choose_model("pairs")
    page.tab("Runs")
    page.wait(lambda: "pix2pix" in page.find(".run").text, "the run")
    assert page.find(".run svg[role=img]").get_attribute("aria-label")
    page.choose("Beside it", "labels")
    page.wait(lambda: sum("pix2pixhd" in e.text for e in page.all(".run")) == 1, "the other run")
    page.choose("Run", "young")
    page.wait(lambda: page.all(".run")[0].text.count("logged until update 0") == 1, "a run without a log")
    log = server.models / "labels" / "log.jsonl"
    before = log.read_text()
    try:
        with log.open("a") as file:
            file.write(json.dumps({"step": 9, "warning": "the discriminator has won"}) + "\n")
        page.wait(lambda: any("the discriminator has won" in e.text for e in page.all(".run .warn")), "the warning")
    finally:
        log.write_text(before)


@pytest.mark.parametrize("name", ["pairs", "labels", "classes", "codes"])
def test_every_control_has_a_name(page: Page, name: str) -> None:
    """What a screen reader says of a control: its label, its text or its title."""
    page.choose_model(name)
    script = """
        const named = (e) => e.ariaLabel || e.title || e.textContent.trim() || e.placeholder || (e.labels && e.labels.length) || e.getAttribute("aria-labelledby") || e.closest("label");
        return [...document.querySelectorAll("button, input, select, textarea, canvas, [role=slider]")]
          .filter((e) => e.checkVisibility() && e.type !== "file" && e.tabIndex >= 0 && !named(e)).map((e) => e.outerHTML.slice(0, 200));"""
    for tab in page.tabs():
        page.tab(tab)
        time.sleep(0.3)
        assert page.driver.execute_script(script) == [], tab

"""Times `img2img serve` in a real Chromium: until the page is there, and from lifting the pen to the translation of a U-Net for 256 pixels.

python tools/bench_serve.py   (needs the extras app and dev, chromium and chromium-driver)
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from img2img.models import Training, Translator, TranslatorConfig
from img2img.networks import UNetConfig, build_generator


def main(strokes: int = 10, port: int = 7899) -> None:
    """Starts a server and a browser, draws, and prints seconds."""
    with tempfile.TemporaryDirectory() as folder:
        config = UNetConfig().resolve(3, 3, 256)
        about = TranslatorConfig(method="pix2pix", generator=config, size=256, training=Training(img2img="0"))
        Translator(about, build_generator(config).eval()).save(Path(folder, "unet256"))
        torch_alone = time_process([sys.executable, "-c", "import torch"])
        began = time.perf_counter()
        command = [sys.executable, "-m", "img2img", "serve", str(Path(folder, "unet256")), "--port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout and "Ctrl-C" in server.stdout.readline()
                print(
                    f"ready after {time.perf_counter() - began:.2f} s, of which import torch takes {torch_alone:.2f} s"
                )
                draw(f"http://127.0.0.1:{port}", strokes)
            finally:
                server.terminate()


def time_process(command: list[str]) -> float:
    """Seconds of a command's second run, when its files are in the system's cache."""
    subprocess.run(command, check=True)
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def draw(address: str, strokes: int) -> None:
    """Opens the page, draws strokes, and prints how long each took."""
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1300,1200",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))

    def wait(condition: Callable[[], Any]) -> Any:
        return WebDriverWait(driver, 60, 0.02).until(lambda _: condition())

    try:
        began = time.perf_counter()
        driver.get(address)
        tabs = wait(lambda: [e for e in driver.find_elements(By.CSS_SELECTOR, "button[role=tab]") if e.is_displayed()])
        print(f"first page after {time.perf_counter() - began:.2f} s")
        next(tab for tab in tabs if tab.text.strip() == "Draw").click()
        canvas = wait(lambda: next((e for e in driver.find_elements(By.CSS_SELECTOR, "#drawing canvas")), None))
        seconds, before = [], None
        for number in range(strokes):
            pen = ActionChains(driver, duration=20).move_to_element_with_offset(canvas, -100, 15 * number - 100)
            pen.click_and_hold().move_by_offset(150, 10).perform()
            ActionChains(driver, duration=1).release().perform()
            began = time.perf_counter()

            def made(old: str | None = before) -> str | None:
                shown = [e.get_attribute("src") for e in driver.find_elements(By.CSS_SELECTOR, "#draw-made img")]
                return next((source for source in shown if source and source != old), None)

            before = wait(made)
            seconds.append(time.perf_counter() - began)
        print(
            f"from lifting the pen to the translation: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
        )
    finally:
        driver.quit()


if __name__ == "__main__":
    tyro.cli(main)

"""3D Slicer module: registers two volumes of the scene with corereg and puts the moving one under the found transform.

The registration runs in a process of its own. corereg must be installed in Slicer's own Python (3.10 or later).
"""

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

MODALITIES = ("auto", "ct", "ct-abdomen", "mr")

WORKER = Path(__file__).parent / "CoreRegLib" / "worker.py"


class CoreReg(ScriptedLoadableModule):
    """Entry in Slicer's list of modules."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "corereg"
        parent.categories = ["Registration"]
        parent.dependencies = []
        parent.contributors = ["The corereg developers"]
        parent.helpText = "Deformable registration of CT and MR scans: choose a fixed and a moving volume."
        parent.acknowledgementText = "The method is CoRe; see the citation file of corereg. Not a medical device."


class CoreRegWidget(ScriptedLoadableModuleWidget):
    """Selectors for two volumes and a modality, two buttons and a progress bar."""

    def setup(self):
        super().setup()
        self.logic = CoreRegLogic()
        form = qt.QFormLayout()
        self.fixed, self.moving = self._volume_selector(), self._volume_selector()
        self.modality = qt.QComboBox()
        self.modality.addItems(list(MODALITIES))
        self.button, self.cancel = qt.QPushButton("Register"), qt.QPushButton("Cancel")
        self.button.connect("clicked()", self.onRegister)
        self.cancel.connect("clicked()", self.logic.cancel)
        self.bar = qt.QProgressBar()
        for name, widget in (("Fixed", self.fixed), ("Moving", self.moving), ("Modality", self.modality)):
            form.addRow(name, widget)
        for widget in (self.button, self.cancel, self.bar):
            form.addRow(widget)
        self.layout.addLayout(form)
        self.layout.addStretch(1)
        self._running(False)

    def cleanup(self):
        """End the process when the module is closed."""
        self.logic.cancel()

    def onRegister(self):  # noqa: N802 (Slicer's naming style)
        """Start a registration; errors appear in a dialog."""
        with slicer.util.tryWithErrorDisplay("The registration could not be started."):
            self.logic.start(
                self.fixed.currentNode(),
                self.moving.currentNode(),
                progress=self._progress,
                done=self._done,
                modality=self.modality.currentText,
            )
            self._running(True)

    def _progress(self, text, share):
        self.bar.setRange(0, 0 if share is None else 100)  # 0 to 0 shows a bar without an end
        self.bar.setValue(0 if share is None else round(100 * share))
        slicer.util.showStatusMessage(text)

    def _done(self, node, error):
        self._running(False)
        if error:
            slicer.util.errorDisplay(error)

    def _running(self, running):
        self.button.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)

    def _volume_selector(self):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.addEnabled = selector.removeEnabled = False
        selector.noneEnabled = True
        selector.setMRMLScene(slicer.mrmlScene)
        return selector


class CoreRegLogic(ScriptedLoadableModuleLogic):
    """The work, without a window: one registration at a time, in a process of its own."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.process = None

    def start(self, fixed, moving, *, progress, done, **settings):
        """Begin to register; returns at once.

        Args:
            fixed, moving: scalar volume nodes.
            progress: called with a text and the share of the stage that is done, or None if it is not counted.
            done: called at the end with the transform node and None, or with None and what went wrong ("" if it was
                cancelled). The transform maps fixed to moving, as ITK's files do, and is therefore the transform "from
                parent" of the moving volume in Slicer.
            **settings: settings of `corereg.register`.
        """
        if self.process is not None:
            raise RuntimeError("a registration is running; cancel it first")
        if importlib.util.find_spec("corereg") is None:
            raise RuntimeError(
                "corereg is not installed in Slicer's Python; in the Python console: "
                "slicer.util.pip_install('/path/to/corereg')"
            )
        for node, name in ((fixed, "fixed"), (moving, "moving")):
            self.check(node, name)
        self.folder = Path(tempfile.mkdtemp(prefix="corereg-"))
        files = [str(self.folder / name) for name in ("fixed.nrrd", "moving.nrrd", "transform.h5")]
        for node, file in zip((fixed, moving), files[:2]):  # noqa: B905 (Slicer 5.0 has Python 3.9)
            if not slicer.util.exportNode(node, file):
                self._clean()
                raise RuntimeError(f"{node.GetName()} could not be written to {file}")
        self.moving, self.progress, self.done = moving, progress, done
        self.name = f"{moving.GetName()} to {fixed.GetName()}"
        self.cancelled, self.rest = False, ""
        self.process = qt.QProcess()
        self.process.connect("readyReadStandardOutput()", self._read)
        self.process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        python = shutil.which("PythonSlicer") or sys.executable
        self.process.start(python, [str(WORKER), *files, json.dumps(settings)])

    def cancel(self):
        """End the registration that runs, if there is one."""
        if self.process is not None:
            self.cancelled = True
            self.process.kill()

    @staticmethod
    def check(node, name):
        """Raises ValueError if there is no volume, or it is under a transform, which its file would not have."""
        if node is None:
            raise ValueError(f"choose a {name} volume")
        if node.GetParentTransformNode() is not None:
            raise ValueError(f"{node.GetName()} is under a transform; harden it first (right click, Harden transform)")

    def _read(self):
        lines = (self.rest + _text(self.process.readAllStandardOutput())).split("\n")
        self.rest = lines.pop()
        for line in lines:
            try:
                report = json.loads(line)
                self.progress(report["text"], report["share"])
            except (ValueError, KeyError, TypeError):
                continue  # another library's line

    def _finished(self, code, status=0):
        node, error = None, None
        transform = self.folder / "transform.h5"
        if self.cancelled:
            error = ""
        elif code == 0 and transform.is_file():
            node = slicer.util.loadTransform(str(transform))
            node.SetName(self.name)
            self.moving.SetAndObserveTransformNodeID(node.GetID())
        else:
            last = _text(self.process.readAllStandardError()).strip().split("\n")[-1]
            error = last or f"the registration ended with status {code}"
        self.process = None
        self._clean()
        self.done(node, error)

    def _clean(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def _text(output):
    """What a process wrote, from Qt's array of bytes."""
    return bytes(output.data()).decode("utf-8", "replace")


class CoreRegTest(ScriptedLoadableModuleTest):
    """Started by Slicer's own test button: the shift of a volume by three voxels is found."""

    def runTest(self):  # noqa: N802 (Slicer's name)
        import numpy as np

        slicer.mrmlScene.Clear()
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 44, 48)), indexing="ij")
        body = 1000.0 * (sum(axis**2 for axis in axes) < 0.5) + 200 * np.sin(9 * axes[0]) * np.cos(7 * axes[1])
        nodes = []
        for name, array in (("fixed", body), ("moving", np.roll(body, 3, axis=2))):
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            slicer.util.updateVolumeFromArray(node, array)
            node.SetSpacing(3, 3, 3)
            nodes.append(node)
        loop, found = qt.QEventLoop(), []

        def done(node, error):
            found.append((node, error))
            loop.quit()

        CoreRegLogic().start(*nodes, progress=lambda text, share: None, done=done)
        loop.exec_()
        ((transform, error),) = found
        assert error is None, error
        assert nodes[1].GetParentTransformNode() is transform
        bounds, match = [0.0] * 6, [0.0] * 3
        nodes[0].GetRASBounds(bounds)
        centre = [(low + high) / 2 for low, high in zip(bounds[::2], bounds[1::2])]  # noqa: B905
        transform.GetTransformFromParent().TransformPoint(centre, match)
        assert 6 < np.linalg.norm(np.subtract(match, centre)) < 12, "three voxels of 3 mm"

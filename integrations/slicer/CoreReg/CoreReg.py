"""3D Slicer module: registers two volumes of the scene with corereg and puts the moving one under the found transform.

corereg must be installed in Slicer's own Python (3.10 or later); see docs/how-to/slicer.md.
"""

import tempfile
from pathlib import Path

import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

MODALITIES = ("auto", "ct", "ct-abdomen", "mr")


class CoreReg(ScriptedLoadableModule):
    """Entry in Slicer's list of modules."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "corereg"
        parent.categories = ["Registration"]
        parent.contributors = ["The corereg developers"]
        parent.helpText = "Deformable registration of CT and MR scans: choose a fixed and a moving volume."
        parent.acknowledgementText = "The method is CoRe; see the citation file of corereg."


class CoreRegWidget(ScriptedLoadableModuleWidget):
    """Selectors for two volumes and a modality, and a button."""

    def setup(self):
        super().setup()
        self.logic = CoreRegLogic()
        form = qt.QFormLayout()
        self.fixed, self.moving = self._volume_selector(), self._volume_selector()
        self.modality = qt.QComboBox()
        self.modality.addItems(list(MODALITIES))
        self.button = qt.QPushButton("Register")
        self.button.connect("clicked()", self.onRegister)
        for name, widget in (("Fixed", self.fixed), ("Moving", self.moving), ("Modality", self.modality)):
            form.addRow(name, widget)
        form.addRow(self.button)
        self.layout.addLayout(form)
        self.layout.addStretch(1)

    def onRegister(self):  # noqa: N802 (Slicer's naming style)
        """Register; errors appear in a dialog."""
        with slicer.util.tryWithErrorDisplay("The registration failed.", waitCursor=True):
            self.logic.register(self.fixed.currentNode(), self.moving.currentNode(), modality=self.modality.currentText)

    def _volume_selector(self):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.addEnabled = selector.removeEnabled = False
        selector.noneEnabled = True
        selector.setMRMLScene(slicer.mrmlScene)
        return selector


class CoreRegLogic(ScriptedLoadableModuleLogic):
    """The work, without a window."""

    def register(self, fixed, moving, **settings):
        """Find the transform and put `moving` under it.

        Args:
            fixed, moving: scalar volume nodes.
            **settings: settings of `corereg.register`.

        Returns: the transform node. It maps fixed to moving, as ITK's files do, and is therefore the transform "from
            parent" of the moving volume in Slicer.
        """
        corereg = self.corereg()
        images = [self.image(node, name) for node, name in ((fixed, "fixed"), (moving, "moving"))]
        result = corereg.register(*images, progress=slicer.util.showStatusMessage, **settings)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "transform.h5"
            result.transform.save(path)
            node = slicer.util.loadTransform(str(path))
        node.SetName(f"{moving.GetName()} to {fixed.GetName()}")
        moving.SetAndObserveTransformNodeID(node.GetID())
        return node

    def image(self, node, name):
        """A volume node as a corereg.Image: voxels in the order i, j, k and the voxel-to-RAS matrix."""
        corereg = self.corereg()
        if node is None:
            raise ValueError(f"choose a {name} volume")
        if node.GetParentTransformNode() is not None:
            raise ValueError(f"{node.GetName()} is under a transform; harden it first (right click, Harden transform)")
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        array = slicer.util.arrayFromVolume(node).transpose(2, 1, 0)  # Slicer's arrays run k, j, i
        grid = corereg.Grid(array.shape, slicer.util.arrayFromVTKMatrix(matrix))
        return corereg.Image(array, grid, name=node.GetName())

    @staticmethod
    def corereg():
        """Import the package, or say how to install it."""
        try:
            import corereg
        except ImportError as error:
            raise RuntimeError(
                "corereg is not installed in Slicer's Python; in the Python console: "
                "slicer.util.pip_install('/path/to/corereg')"
            ) from error
        return corereg


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
        transform = CoreRegLogic().register(*nodes)
        assert nodes[1].GetParentTransformNode() is transform
        bounds, match = [0.0] * 6, [0.0] * 3
        nodes[0].GetRASBounds(bounds)
        centre = [(low + high) / 2 for low, high in zip(bounds[::2], bounds[1::2], strict=True)]
        transform.GetTransformFromParent().TransformPoint(centre, match)
        assert 6 < np.linalg.norm(np.subtract(match, centre)) < 12, "three voxels of 3 mm"
